package health_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/musterdns/muster/health"
)

// kept is an entry of an Index.
type kept struct {
	key  health.Key
	next *kept
}

func (k *kept) IndexKey() *health.Key { return &k.key }
func (k *kept) IndexNext() **kept     { return &k.next }

// TestIndex/finds what was added and not removed, by every part of a target.
func TestIndex(t *testing.T) {
	x := health.NewIndex[kept]()
	var targets []health.Target
	for n := range 100 {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(n)}), 80)
		targets = append(targets,
			health.Target{Type: health.TypeTCP, Addr: addr},
			health.Target{Type: health.TypeHTTP, Addr: addr, Path: "/a"},
			health.Target{Type: health.TypeTTL, Name: fmt.Sprint(n)})
	}
	entries := map[health.Target]*kept{}
	for _, target := range targets {
		e := &kept{key: health.KeyOf(target)}
		if got := e.key.Target(); got != target {
			t.Fatalf("the key of %v is that of %v", target, got)
		}
		x.Add(e)
		entries[target] = e
	}
	for i, target := range targets {
		if got := x.Find(health.KeyOf(target)); got != entries[target] {
			t.Fatalf("%v finds %v", target, got)
		}
		if i%2 == 0 {
			x.Remove(entries[target])
		}
	}
	for i, target := range targets {
		if got := x.Find(health.KeyOf(target)); (got == nil) != (i%2 == 0) {
			t.Errorf("%v, the %d-th, finds %v", target, i, got)
		}
	}
}
