package etcd

// For the tests, which have no other way to see in what order members are asked.
var Hedged = hedged[int]

const (
	HedgeDelay  = hedgeDelay
	CallTimeout = callTimeout
)
