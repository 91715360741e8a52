package lb

// All picks every candidate and ignores how their weights differ (the whole
// set goes out with its real SRV weights, and the client chooses). The order is
// rotated by Rand, so that each is first equally often; where k is below n,
// because no more fits, it is a uniform sample.
func All(endpoints []Endpoint) Picker {
	index, equal := candidates(endpoints)
	u := newUniform(index, endpoints)
	if equal {
		return u
	}
	u.weights = make([]uint32, len(u.order))
	for pos, i := range u.order {
		u.weights[pos] = endpoints[i].Weight
	}
	return u
}
