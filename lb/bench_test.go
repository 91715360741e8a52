package lb_test

import (
	"fmt"
	"testing"

	"github.com/musterdns/muster/lb"
)

// BenchmarkPick runs every policy over equal weights and over weights of 1 to
// 10 in one run, so that the figures can be set side by side.
func BenchmarkPick(b *testing.B) {
	for _, name := range lb.Names() {
		for _, weights := range []string{"equal", "mixed"} {
			for _, n := range []int{5, 500, 50_000} {
				picker := build(b, name, shaped(weights, n))
				for _, k := range []int{1, 8} {
					b.Run(fmt.Sprintf("%s/%s/n=%d/k=%d", name, weights, n, k), func(b *testing.B) {
						dst := make([]uint32, 0, k)
						words := newWords(1)
						b.ReportAllocs()
						for b.Loop() {
							dst = picker.Pick(dst[:0], k, words.request())
						}
					})
				}
			}
		}
	}
}

// BenchmarkBuild is what a change costs.
func BenchmarkBuild(b *testing.B) {
	for _, name := range lb.Names() {
		for _, weights := range []string{"equal", "mixed"} {
			for _, n := range []int{5, 500, 50_000} {
				endpoints := shaped(weights, n)
				policy, err := lb.ByName(name)
				if err != nil {
					b.Fatal(err)
				}
				b.Run(fmt.Sprintf("%s/%s/n=%d", name, weights, n), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						policy(endpoints)
					}
				})
			}
		}
	}
}
