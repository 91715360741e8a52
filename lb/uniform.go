package lb

import "math/bits"

// strideCount is how many ways to walk the circle a uniform picker has. With
// one, an endpoint would always be accompanied by the same neighbours, who
// would then inherit all its clients when it dies; 16 spread them.
const strideCount = 16

// uniform picks k of n candidates, each equally often, in O(k): it starts
// anywhere on a shuffled circle and walks with a stride that is coprime to n.
type uniform struct {
	size    int // of the endpoint list
	order   []uint32
	strides [strideCount]uint32 // the first is 1
	weights []uint32            // of order, for Shares; nil: equal
}

func newUniform(index []uint32, endpoints []Endpoint) *uniform {
	shuffle(index, endpoints)
	u := &uniform{size: len(endpoints), order: index}
	n := uint64(len(index))
	for i := range u.strides {
		u.strides[i] = 1
		if i == 0 || n < 3 {
			continue
		}
		s, _ := bits.Mul64(mix(uint64(i)), n)
		for gcd(s, n) != 1 {
			s = (s + 1) % n
		}
		u.strides[i] = uint32(s)
	}
	return u
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Pick starts where the high bits of Rand say and takes its stride from the
// low bits, so that evenly spaced words walk alike from evenly spaced places.
func (u *uniform) Pick(dst []uint32, k int, r Request) []uint32 {
	n := uint64(len(u.order))
	at, _ := bits.Mul64(r.Rand, n)
	stride := uint64(u.strides[r.Rand%strideCount])
	for range min(k, len(u.order)) {
		dst = append(dst, u.order[at])
		if at += stride; at >= n {
			at -= n
		}
	}
	return dst
}

// Shares implements Sharer.
func (u *uniform) Shares(k int) []Share {
	shares := equalShares(u.size, u.order, k)
	if k >= len(u.order) && u.weights != nil {
		var total float64
		for _, w := range u.weights {
			total += float64(w)
		}
		for pos, i := range u.order {
			shares[i].SRV = float64(u.weights[pos]) / total
		}
	}
	return shares
}

// equalShares are those of the candidates of order among size endpoints, of
// which k are picked, each equally often.
func equalShares[T uint8 | uint32](size int, order []T, k int) []Share {
	shares := make([]Share, size)
	n := len(order)
	if k = min(k, n); k <= 0 {
		return shares
	}
	each := 1 / float64(n)
	for _, i := range order {
		shares[i] = Share{Included: float64(k) / float64(n), First: each, Uniform: each, SRV: each}
	}
	return shares
}
