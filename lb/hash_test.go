package lb_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/musterdns/muster/lb"
)

// choices returns the id of the first choice of each of the keys 0 to keys-1.
func choices(endpoints []lb.Endpoint, keys int) []uint64 {
	p := lb.Hash(endpoints)
	ids := make([]uint64, keys)
	var got []uint32
	for key := range ids {
		got = p.Pick(got[:0], 1, lb.Request{Hash: uint64(key)})
		ids[key] = endpoints[got[0]].ID
	}
	return ids
}

// moves counts the keys whose choice differs, and of those the needless ones:
// neither from nor to the endpoint of that id.
func moves(before, after []uint64, id uint64) (moved, needless int) {
	for key := range before {
		if before[key] == after[key] {
			continue
		}
		moved++
		if before[key] != id && after[key] != id {
			needless++
		}
	}
	return moved, needless
}

func TestHash_Proportion(t *testing.T) {
	t.Run("1:2:3:4 over consecutive keys", func(t *testing.T) {
		p := lb.Hash(list(1, 2, 3, 4))
		seen := make([]int, 4)
		var got []uint32
		for key := range uint64(200_000) {
			got = p.Pick(got[:0], 1, lb.Request{Hash: key})
			seen[got[0]]++
		}
		chiSquare(t, "rendezvous", seen, []float64{.1, .2, .3, .4})
	})
	for _, n := range []int{256, 257, 1000} {
		t.Run(fmt.Sprintf("%d endpoints of weights 1 to 10, ids in sequence", n), func(t *testing.T) {
			endpoints := shaped("mixed", n)
			for i := range endpoints {
				endpoints[i].ID = uint64(i)
			}
			p := lb.Hash(endpoints)
			seen := make([]int, n)
			var got []uint32
			for key := range uint64(60_000) {
				got = p.Pick(got[:0], 1, lb.Request{Hash: key})
				seen[got[0]]++
			}
			want := make([]float64, n)
			for i, s := range shares(t, p, 1) {
				want[i] = s.First
			}
			chiSquare(t, "first", seen, want)
		})
	}
}

// TestHash_Movement: a change of one endpoint moves only what it gains or
// loses, exactly, up to 256 endpoints.
func TestHash_Movement(t *testing.T) {
	t.Run("rendezvous makes no needless move on remove, add and reweight", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			n := rapid.IntRange(2, 40).Draw(t, "n")
			weights := make([]uint32, n)
			largest := rapid.SampledFrom([]uint32{1, 10, 65_535}).Draw(t, "largest")
			for i := range weights {
				weights[i] = rapid.Uint32Range(1, largest).Draw(t, "w")
			}
			all := list(weights...)
			i := rapid.IntRange(0, n-1).Draw(t, "changed")
			before := choices(all, 500)
			without := slices.Delete(slices.Clone(all), i, i+1)
			if _, needless := moves(before, choices(without, 500), all[i].ID); needless != 0 {
				t.Fatalf("removing (or, read backwards, adding) moved %d keys of others", needless)
			}
			heavier := slices.Clone(all)
			heavier[i].Weight += rapid.Uint32Range(1, largest).Draw(t, "more")
			after := choices(heavier, 500)
			if _, needless := moves(before, after, all[i].ID); needless != 0 {
				t.Fatalf("reweighting moved %d keys of others", needless)
			}
			for key := range before {
				if before[key] == all[i].ID && after[key] != all[i].ID {
					t.Fatalf("key %d left an endpoint that became heavier", key)
				}
			}
		})
	})
	t.Run("at 256 endpoints too", func(t *testing.T) {
		all := shaped("mixed", 256)
		before := choices(all, 100_000)
		moved, needless := moves(before, choices(all[:255], 100_000), all[255].ID)
		if needless != 0 || moved == 0 {
			t.Errorf("moved %d, %d of them needlessly", moved, needless)
		}
	})
}

// TestHash_Movement_Grouped: above 256 endpoints at most 2 w/W of the keys move.
func TestHash_Movement_Grouped(t *testing.T) {
	const keys = 30_000
	for _, n := range []int{300, 2_000} {
		all := shaped("mixed", n)
		var total float64
		for _, e := range all {
			total += float64(e.Weight)
		}
		before := choices(all, keys)
		for _, i := range []int{7, n - 1} {
			without := slices.Delete(slices.Clone(all), i, i+1)
			heavier := slices.Clone(all)
			heavier[i].Weight += 9
			for what, c := range map[string]struct {
				after []uint64
				bound float64
			}{
				"remove": {choices(without, keys), 2 * float64(all[i].Weight) / total},
				"add 9":  {choices(heavier, keys), 2 * 9 / total},
			} {
				moved, _ := moves(before, c.after, all[i].ID)
				// Three standard deviations of the count on top of the bound.
				limit := c.bound*keys + 3*math.Sqrt(c.bound*keys)
				if moved == 0 || float64(moved) > limit {
					t.Errorf("n=%d, %s at %d: %d of %d keys moved, limit %.0f", n, what, i, moved, keys, limit)
				}
			}
		}
	}
}

func TestHash_Rank(t *testing.T) {
	for _, n := range []int{5, 256, 257, 900} {
		t.Run(fmt.Sprintf("of %d: the second is first when the first is gone, and so on", n), func(t *testing.T) {
			all := shaped("mixed", n)
			for key := range uint64(50) {
				rank := lb.Hash(all).Pick(nil, 4, lb.Request{Hash: key})
				left := slices.Clone(all)
				for at := range len(rank) - 1 {
					gone := all[rank[at]].ID
					left = slices.DeleteFunc(left, func(e lb.Endpoint) bool { return e.ID == gone })
					if len(left) == 256 && n > 256 {
						break // 256 are not grouped
					}
					first := lb.Hash(left).Pick(nil, 1, lb.Request{Hash: key})[0]
					if got, want := left[first].ID, all[rank[at+1]].ID; got != want {
						t.Fatalf("key %d: without the first %d the choice is %x, rank said %x", key, at+1, got, want)
					}
				}
			}
		})
	}
	t.Run("k picks are the first k of more picks", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			p := lb.Hash(list(drawWeights(t, 400)...))
			r := lb.Request{Hash: rapid.Uint64().Draw(t, "hash")}
			long := p.Pick(nil, lb.HashRankMax, r)
			k := rapid.IntRange(1, len(long)).Draw(t, "k")
			if short := p.Pick(nil, k, r); !slices.Equal(short, long[:k]) {
				t.Fatalf("k=%d: %v, want %v", k, short, long[:k])
			}
		})
	})
	t.Run("the order of the list does not matter", func(t *testing.T) {
		for _, n := range []int{9, 300} {
			all := shaped("mixed", n)
			reversed := slices.Clone(all)
			slices.Reverse(reversed)
			if !slices.Equal(choices(all, 2_000), choices(reversed, 2_000)) {
				t.Errorf("n=%d: reversed, the list gives other choices", n)
			}
		}
	})
}

// TestHash_Shares_Inclusion checks the integral against all orders, written out.
func TestHash_Shares_Inclusion(t *testing.T) {
	weights := []uint32{1, 2, 3, 10, 500}
	var included func(i, k int, gone uint, chance float64) float64
	included = func(i, k int, gone uint, chance float64) float64 {
		if k == 0 {
			return 0
		}
		var left, sum float64
		for j, w := range weights {
			if gone&(1<<j) == 0 {
				left += float64(w)
			}
		}
		for j, w := range weights {
			if gone&(1<<j) != 0 {
				continue
			}
			step := chance * float64(w) / left
			if j == i {
				sum += step
			} else {
				sum += included(i, k-1, gone|1<<j, step)
			}
		}
		return sum
	}
	for k := 1; k <= len(weights); k++ {
		for i, s := range shares(t, lb.Hash(list(weights...)), k) {
			if want := included(i, k, 0, 1); math.Abs(s.Included-want) > 1e-6 {
				t.Errorf("k=%d, endpoint %d: included %.8f, want %.8f", k, i, s.Included, want)
			}
		}
	}
}
