package lb_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/musterdns/muster/lb"
)

// slotCounts counts each endpoint's slots.
func slotCounts(table []uint32, n int) []int {
	counts := make([]int, n)
	for _, i := range table {
		counts[i]++
	}
	return counts
}

// Eisenbud et al. 2016, section 3.4: shares are even.
func TestMaglev_EqualWeightsDifferByOneSlot(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 7, 10, 64, 100, 500, 1000} {
		counts := slotCounts(lb.Maglev(shaped("equal", n)), n)
		if d := slices.Max(counts) - slices.Min(counts); d > 1 {
			t.Errorf("%d equal endpoints: slots differ by %d", n, d)
		}
	}
}

func TestMaglev_SharesFollowWeights(t *testing.T) {
	for _, row := range []struct{ weights, want []uint32 }{
		{[]uint32{1, 2}, []uint32{21_846, 43_691}}, // as in Envoy's documentation
		{[]uint32{2, 1}, []uint32{43_691, 21_846}},
		{[]uint32{1, 2, 7}, []uint32{6_554, 13_107, 45_876}},
		{[]uint32{0, 5, 0}, []uint32{0, 65_537, 0}},
		{[]uint32{0, 0}, []uint32{32_769, 32_768}}, // a weight of 0 counts when all are 0
	} {
		counts := slotCounts(lb.Maglev(list(row.weights...)), len(row.weights))
		for i, want := range row.want {
			if d := counts[i] - int(want); d < -1 || d > 1 {
				t.Errorf("weights %v: slots %v, want %v", row.weights, counts, row.want)
				break
			}
		}
	}
}

// someWeights are a few generated lists of weights: a table costs too much under
// the race detector for a hundred.
func someWeights(most int) [][]uint32 {
	draw := rapid.Custom(func(t *rapid.T) []uint32 { return drawWeights(t, most) })
	lists := make([][]uint32, 12)
	for seed := range lists {
		lists[seed] = draw.Example(seed)
	}
	return lists
}

func TestMaglev_EveryShareIsWithinASlot(t *testing.T) {
	for _, weights := range someWeights(40) {
		table := lb.Maglev(list(weights...))
		if len(table) != lb.MaglevSlots {
			t.Fatalf("%d slots", len(table))
		}
		var total float64
		for _, w := range weights {
			total += float64(w)
		}
		for i, count := range slotCounts(table, len(weights)) {
			share := 1 / float64(len(weights))
			if total > 0 {
				share = float64(weights[i]) / total
			}
			if off := math.Abs(float64(count) - share*lb.MaglevSlots); off > 1+1e-6 {
				t.Errorf("weights %v: endpoint %d has %d slots, its share is %.2f", weights, i, count, share*lb.MaglevSlots)
			}
		}
	}
}

func TestMaglev_DoesNotDependOnTheOrder(t *testing.T) {
	for _, weights := range someWeights(30) {
		endpoints := list(weights...)
		before := lb.Maglev(endpoints)
		reversed := slices.Clone(endpoints)
		slices.Reverse(reversed)
		after := lb.Maglev(reversed)
		for slot := range before {
			if was, is := endpoints[before[slot]].ID, reversed[after[slot]].ID; was != is {
				t.Fatalf("weights %v: slot %d is %x, was %x in the other order", weights, slot, is, was)
			}
		}
	}
}

// Moved are the slots of the one that left and few others.
func TestMaglev_LittleMovesWhenOneLeaves(t *testing.T) {
	for _, n := range []int{2, 10, 100, 1000} {
		for _, weights := range []string{"equal", "mixed"} {
			endpoints := shaped(weights, n)
			before := lb.Maglev(endpoints)
			var total, worst float64
			for _, e := range endpoints {
				total += float64(e.Weight)
			}
			for _, leaves := range []int{0, n / 2, n - 1} {
				rest := slices.Delete(slices.Clone(endpoints), leaves, leaves+1)
				after := lb.Maglev(rest)
				needless := 0
				for slot := range before {
					was := endpoints[before[slot]].ID
					if was != endpoints[leaves].ID && was != rest[after[slot]].ID {
						needless++
					}
				}
				share := float64(needless) / lb.MaglevSlots
				worst = max(worst, share)
				if share > 0.015 {
					t.Errorf("%d %s endpoints, one leaves: %.2f %% moved needlessly", n, weights, 100*share)
				}
			}
			t.Logf("%d %s: %.2f %%", n, weights, 100*worst)
		}
	}
}

func TestMaglev_OfNothingIsNil(t *testing.T) {
	if table := lb.Maglev(nil); table != nil {
		t.Errorf("%d slots of no endpoint", len(table))
	}
}

func BenchmarkMaglev(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		for _, weights := range []string{"equal", "mixed"} {
			b.Run(fmt.Sprintf("n=%d/%s", n, weights), func(b *testing.B) {
				endpoints := shaped(weights, n)
				for b.Loop() {
					lb.Maglev(endpoints)
				}
			})
		}
	}
}
