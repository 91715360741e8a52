package lb

import "math/bits"

// fewMax is up to how many candidates a Few has.
const fewMax = 16

// Few is a Picker that picks k of up to 16 candidates, each equally often, as a
// value that fits a cache line: who answers from many lists, each cold, keeps it
// beside what else an answer reads. The zero Few picks nothing.
type Few struct {
	size    uint16 // of the endpoint list
	n       uint8
	order   [fewMax]uint8 // a shuffled circle
	strides [strideCount]uint8
}

// FewOf returns p as a value; false when it is another kind of Picker.
func FewOf(p Picker) (Few, bool) {
	u, ok := p.(*uniform)
	if !ok || len(u.order) > fewMax || u.size > 1<<8 || u.weights != nil {
		return Few{}, false
	}
	f := Few{size: uint16(u.size), n: uint8(len(u.order))}
	for i, at := range u.order {
		f.order[i] = uint8(at)
	}
	for i, s := range u.strides {
		f.strides[i] = uint8(s)
	}
	return f, true
}

// Shares implements Sharer.
func (f *Few) Shares(k int) []Share { return equalShares(int(f.size), f.order[:f.n], k) }

// Pick implements Picker. It picks what the Picker does that f was made from.
func (f *Few) Pick(dst []uint32, k int, r Request) []uint32 {
	n := uint64(f.n)
	at, _ := bits.Mul64(r.Rand, n)
	stride := uint64(f.strides[r.Rand%strideCount])
	for range min(k, int(n)) {
		dst = append(dst, uint32(f.order[at%fewMax]))
		if at += stride; at >= n {
			at -= n
		}
	}
	return dst
}
