package dispatch

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
)

// Member is an instance as a data plane needs it that chooses by itself, as the
// kernel's do.
type Member struct {
	ID   string
	Addr netip.AddrPort
	// Weight is the member's part of what is new, in any unit; 0 where End is
	// set, and for what is to be asked only when all weights are 0.
	Weight uint32
	// End says that the member gets nothing new, and why: EndDown, and what it
	// has is to be reset, or EndDrain, and that may go on.
	End End
}

// Members lists the instances that may be chosen, and those that might and have
// ended since, by id. Deregistered ones are not among them, nor are those that
// are ejected or whose tier is not needed, unless they have ended.
func (b *Backend) Members() []Member {
	st := b.refresh()
	var out []Member
	for t := range st.tiers {
		scale := st.tierScale(t)
		for n, i := range st.tiers[t].list {
			w := float64(st.tiers[t].weights[n])
			if w > 0 {
				w = max(math.Round(w*scale), 1)
			}
			out = append(out, Member{ID: i.id, Addr: i.addr, Weight: uint32(min(w, math.MaxUint32))})
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, i := range b.instances {
		if st.byID[id] != i {
			if end := i.term.Load().ending(); end != EndNone {
				out = append(out, Member{ID: id, Addr: i.addr, End: end})
			}
		}
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// tierScale is the factor that makes the weights of a tier its part of all: 1
// where there is one tier, so that its weights do not move with its members.
func (s *state) tierScale(t int) float64 {
	if len(s.loads) == 0 {
		return 1
	}
	sum := 0.0
	for _, w := range s.tiers[t].weights {
		sum += float64(w)
	}
	const whole = 1 << 24
	return whole * float64(s.loads[t].Load) / 100 / max(sum, 1)
}
