package lb

import "math/bits"

// line lays the candidates end to end, each as long as its weight, so that a
// uniformly random place on it is an endpoint in proportion to its weight.
// The heaviest come first: those that are sure to be picked, whatever k is,
// are then a prefix, and leaving them out is a subtraction. Equal weights lie
// in shuffled order.
type line struct {
	size  int      // of the endpoint list
	index []uint32 // into the endpoint list
	// start[i] is where index[i] begins; start[n] is the total weight, below
	// 2^63 for n < 2^31.
	start []uint64
	// guide[b] is the candidate that holds the first place of bucket b, the
	// places that are equal above their low shift bits: it cuts the binary
	// search down to O(1) steps in the mean.
	guide []uint32
	shift uint
}

// newLine takes over index. No weight may be 0.
func newLine(index []uint32, endpoints []Endpoint) line {
	shuffle(index, endpoints)
	index = heaviestFirst(index, endpoints)
	l := line{size: len(endpoints), index: index, start: make([]uint64, len(index)+1)}
	for pos, i := range index {
		l.start[pos+1] = l.start[pos] + uint64(endpoints[i].Weight)
	}
	// Between n and 2n buckets, unless the weights add up to less.
	l.shift = uint(max(0, bits.Len64(l.total()-1)-bits.Len(uint(len(index)))))
	l.guide = make([]uint32, (l.total()-1)>>l.shift+2)
	pos := uint32(0)
	for b := range l.guide {
		for int(pos) < len(index)-1 && l.start[pos+1] <= uint64(b)<<l.shift {
			pos++
		}
		l.guide[b] = pos
	}
	return l
}

// heaviestFirst sorts by weight and keeps the order of equals. It is a radix
// sort by bytes, since a change of one endpoint of a large service is paid for
// here: a comparison sort of 50,000 takes 10 times as long.
func heaviestFirst(index []uint32, endpoints []Endpoint) []uint32 {
	spare := make([]uint32, len(index))
	for shift := 0; shift < 32; shift += 8 {
		var place [257]uint32
		for _, i := range index {
			place[^endpoints[i].Weight>>shift&0xff+1]++
		}
		if place[^endpoints[index[0]].Weight>>shift&0xff+1] == uint32(len(index)) {
			continue // all alike in this byte
		}
		for b := range place[1:] {
			place[b+1] += place[b]
		}
		for _, i := range index {
			b := ^endpoints[i].Weight >> shift & 0xff
			spare[place[b]] = i
			place[b]++
		}
		index, spare = spare, index
	}
	return index
}

// total is the sum of the weights.
func (l *line) total() uint64 { return l.start[len(l.index)] }

// find returns which candidate holds a place below the total.
func (l *line) find(place uint64) int {
	b := place >> l.shift
	low, high := int(l.guide[b]), int(l.guide[b+1])
	for low < high {
		middle := int(uint(low+high+1) >> 1)
		if l.start[middle] <= place {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}

// certain returns how many of the heaviest are in every choice of k < n: those
// longer than the step of the systematic sample over what is left.
func (l *line) certain(k int) int {
	c := 0
	for (l.start[c+1]-l.start[c])*uint64(k-c) > l.total()-l.start[c] {
		c++
	}
	return c
}

// pick chooses k by one word, which is a place on the line with 64 bits of
// fraction. The candidate at that place is first. Then come the certain ones,
// then those at equal steps around the rest of the line. Where the first is
// itself a certain one, its own fraction says where on the rest to start: the
// word serves for both draws, because where in the certain prefix it falls and
// whether it falls there are independent.
func (l *line) pick(dst []uint32, k int, word uint64) []uint32 {
	n := len(l.index)
	k = min(k, n)
	if k <= 0 {
		return dst
	}
	place, fraction := bits.Mul64(word, l.total())
	first := l.find(place)
	dst = append(dst, l.index[first])
	if k == n {
		dst = append(dst, l.index[first+1:]...)
		return append(dst, l.index[:first]...)
	}
	if k == 1 {
		return dst
	}
	c := l.certain(k)
	prefix := l.start[c]
	if first >= c {
		dst = append(dst, l.index[:c]...)
		return l.steps(dst, c, k-c, 1, place-prefix)
	}
	dst = append(dst, l.index[first+1:c]...)
	dst = append(dst, l.index[:first]...)
	word, _ = bits.Div64(place, fraction, prefix) // place < prefix: no overflow
	place, _ = bits.Mul64(word, l.total()-prefix)
	return l.steps(dst, c, k-c, 0, place)
}

// steps appends what lies at place + i/k of the line from candidate c on, for
// i from skip to k-1, wrapping round. Steps are whole numbers: place is
// uniform, so each step is, and no two fall into one candidate since none is
// longer than a step.
func (l *line) steps(dst []uint32, c, k, skip int, place uint64) []uint32 {
	prefix := l.start[c]
	rest := l.total() - prefix
	step, remainder := rest/uint64(k), rest%uint64(k)
	carry := uint64(0)
	for i := range k {
		if i >= skip {
			dst = append(dst, l.index[l.find(prefix+place)])
		}
		place += step
		if carry += remainder; carry >= uint64(k) {
			carry -= uint64(k)
			place++
		}
		if place >= rest {
			place -= rest
		}
	}
	return dst
}

// shares implements Sharer for what picks from a line.
func (l *line) shares(k int) []Share {
	shares := make([]Share, l.size)
	n := len(l.index)
	k = min(k, n)
	if k <= 0 {
		return shares
	}
	c := n
	if k < n {
		c = l.certain(k)
	}
	rest := float64(l.total() - l.start[c])
	for pos, i := range l.index {
		weight := float64(l.start[pos+1] - l.start[pos])
		s := &shares[i]
		s.First = weight / float64(l.total())
		s.Included = 1
		if pos >= c {
			s.Included = float64(k-c) * weight / rest
		}
		s.Uniform = s.Included / float64(k)
		s.SRV = s.Uniform
		if k == n {
			s.SRV = s.First
		}
	}
	return shares
}
