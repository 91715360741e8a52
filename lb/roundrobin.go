package lb

import "math/bits"

// The smooth sequence is computed ahead while it has at most sequenceMax
// entries and sequenceEndpointsMax endpoints: building it costs their product
// (64 k steps, tens of microseconds), keeping it 2 bytes an entry.
const (
	sequenceMax          = 1024
	sequenceEndpointsMax = 64
)

// RoundRobin picks by the caller's counter alone.
//
// Equal weights: the endpoints in the order given, k from Seq on, round and
// round. Few small unequal weights (at most 64 endpoints, and a sum of at most
// 1,024 once divided by their greatest common divisor): nginx's smooth
// weighted sequence, 5:1:1 being a a b a c a a, entry Seq mod period and the
// next k-1 distinct ones. Counted from the start of the period, an endpoint is
// never more than 1.5 off its share among 12 endpoints, nor 2 among 64 (1.25
// was the most seen in 250,000 random sets, with 8:1:1:8:1:1:12:1:1:12:1:1). Any
// other weights: Seq walks the line of weights by golden-ratio steps
// (walkStride), an endpoint straying at most 6 from its share (4 was the most
// seen), and the rest of the k are a systematic sample from there, O(k log n).
//
// In every case each endpoint is first exactly w times in any W consecutive
// picks, W being the sum of the reduced weights.
func RoundRobin(endpoints []Endpoint) Picker {
	index, equal := candidates(endpoints)
	if equal {
		return &rotation{size: len(endpoints), index: index}
	}
	var divisor, total uint64
	for _, i := range index {
		divisor = gcd(uint64(endpoints[i].Weight), divisor)
		total += uint64(endpoints[i].Weight)
	}
	if period := total / divisor; period <= sequenceMax && len(index) <= sequenceEndpointsMax {
		return newSequence(index, endpoints, divisor, int(period))
	}
	l := newLine(index, endpoints)
	return &walk{line: l, period: total / divisor, stride: walkStride(total / divisor)}
}

// rotation is round robin over equal weights.
type rotation struct {
	size  int // of the endpoint list
	index []uint32
}

// Pick implements Picker.
func (p *rotation) Pick(dst []uint32, k int, r Request) []uint32 {
	n := len(p.index)
	k = min(k, n)
	if k <= 0 {
		return dst
	}
	at := int(r.Seq % uint64(n))
	run := min(k, n-at)
	dst = append(dst, p.index[at:at+run]...)
	return append(dst, p.index[:k-run]...)
}

// Shares implements Sharer.
func (p *rotation) Shares(k int) []Share {
	u := uniform{size: p.size, order: p.index}
	return u.Shares(k)
}

// sequence is round robin by a smooth sequence computed ahead.
type sequence struct {
	size    int // of the endpoint list
	index   []uint32
	entries []uint16 // one period, into index
	weights []uint32 // of index, for Shares
}

// newSequence runs smooth weighted round robin (nginx's
// ngx_http_upstream_get_peer) for one period: each pick adds every weight to
// its endpoint's credit, takes the largest, and takes the total off it.
func newSequence(index []uint32, endpoints []Endpoint, divisor uint64, period int) *sequence {
	p := &sequence{
		size: len(endpoints), index: index,
		entries: make([]uint16, period), weights: make([]uint32, len(index)),
	}
	for pos, i := range index {
		p.weights[pos] = uint32(uint64(endpoints[i].Weight) / divisor)
	}
	credit := make([]int64, len(index))
	for t := range p.entries {
		best := 0
		for pos := range credit {
			credit[pos] += int64(p.weights[pos])
			if credit[pos] > credit[best] {
				best = pos
			}
		}
		credit[best] -= int64(period)
		p.entries[t] = uint16(best)
	}
	return p
}

// Pick implements Picker. At most one period is looked at.
func (p *sequence) Pick(dst []uint32, k int, r Request) []uint32 {
	k = min(k, len(p.index))
	if k <= 0 {
		return dst
	}
	var taken uint64 // bit i: index[i] is in dst; 64 endpoints at most
	for at := int(r.Seq % uint64(len(p.entries))); ; {
		entry := p.entries[at]
		if bit := uint64(1) << entry; taken&bit == 0 {
			taken |= bit
			dst = append(dst, p.index[entry])
			if k--; k == 0 {
				return dst
			}
		}
		if at++; at == len(p.entries) {
			at = 0
		}
	}
}

// Shares implements Sharer: it counts one period.
func (p *sequence) Shares(k int) []Share {
	shares := make([]Share, p.size)
	k = min(k, len(p.index))
	if k <= 0 {
		return shares
	}
	each := 1 / float64(len(p.entries))
	var picked []uint32
	for at := range p.entries {
		picked = p.Pick(picked[:0], k, Request{Seq: uint64(at)})
		for _, i := range picked {
			shares[i].Included += each
		}
	}
	for pos, i := range p.index {
		s := &shares[i]
		s.First = float64(p.weights[pos]) * each
		s.Uniform = s.Included / float64(k)
		s.SRV = s.Uniform
		if k == len(p.index) {
			s.SRV = s.First
		}
	}
	return shares
}

// walk is round robin over weights too many or too large for a sequence.
type walk struct {
	line   line
	period uint64 // sum of the reduced weights
	stride uint64 // coprime to period
}

// Pick implements Picker.
func (p *walk) Pick(dst []uint32, k int, r Request) []uint32 {
	high, low := bits.Mul64(r.Seq%p.period, p.stride)
	place := bits.Rem64(high, low, p.period)
	// The smallest word that line.pick reads as this place of the reduced
	// line: ceil(place * 2^64 / period).
	word, remainder := bits.Div64(place, 0, p.period)
	if remainder > 0 {
		word++
	}
	return p.line.pick(dst, k, word)
}

// Shares implements Sharer. Inclusion is that of a systematic sample; over one
// period it is off by at most one pick.
func (p *walk) Shares(k int) []Share { return p.line.shares(k) }

// strideTries is how many strides are looked at, at most 90 divisions each.
const strideTries = 128

// walkStride returns a stride coprime to period, so that one period visits
// every place once, and near period divided by the golden ratio, so that any
// run of visits is spread evenly: how far a running count strays is bounded by
// the partial quotients of stride/period (Niederreiter 1992, section 3.1), and
// for the golden ratio they are all 1. Of the strides tried, the one whose
// largest quotient is least is taken.
func walkStride(period uint64) uint64 {
	start, _ := bits.Mul64(period, golden)
	best, least := uint64(1), period+1
	for stride := max(start, 1); stride < min(start+strideTries, period); stride++ {
		a, b, largest := period, stride, uint64(0)
		for b != 0 {
			largest = max(largest, a/b)
			a, b = b, a%b
		}
		if a == 1 && largest < least {
			best, least = stride, largest
		}
	}
	return best
}
