package lb

// Weighted picks in proportion to weight. With equal weights it is a uniform
// sample of k distinct candidates, O(k). With unequal ones it is systematic
// sampling proportional to size (Madow 1949), O(k log n): an endpoint of
// weight w out of W is first with probability w/W exactly, and among the k
// picked with probability min(1, k w/W), what is cut off at 1 being shared by
// the others in proportion. Successive drawing without replacement would not
// be proportional.
func Weighted(endpoints []Endpoint) Picker {
	index, equal := candidates(endpoints)
	if equal {
		return newUniform(index, endpoints)
	}
	return &weighted{line: newLine(index, endpoints)}
}

// weighted draws a place on the line.
type weighted struct{ line line }

// Pick implements Picker.
func (w *weighted) Pick(dst []uint32, k int, r Request) []uint32 {
	return w.line.pick(dst, k, r.Rand)
}

// Shares implements Sharer.
func (w *weighted) Shares(k int) []Share { return w.line.shares(k) }
