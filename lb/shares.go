package lb

// Share is what part of the choices, or of the clients, reaches one endpoint:
// probabilities from 0 to 1 over all values of the Request.
type Share struct {
	// Included is the chance to be among the k picked.
	Included float64
	// First is the chance to be picked first: what a client gets that takes the
	// first record.
	First float64
	// Uniform is the share of a client that picks uniformly from the answer.
	Uniform float64
	// SRV is the share of a client that follows RFC 2782, where the records are
	// sent so: a set chosen by weight with equal weights, a whole set with its
	// real weights, a rank order as priorities. Send large weights: RFC 2782
	// draws from 0 to their sum inclusive, so that of two records of weight 1
	// the first listed would get 2/3.
	SRV float64
}

// Sharer states what shares its picks result in, one Share for each endpoint
// that the picker was built over, in their order. It is for explaining, not for
// the query path: it allocates, and may take milliseconds on large lists.
type Sharer interface {
	Shares(k int) []Share
}

// setUniform derives Uniform from Included for answers of picked records.
func setUniform(shares []Share, picked int) {
	for i := range shares {
		shares[i].Uniform = shares[i].Included / float64(picked)
	}
}
