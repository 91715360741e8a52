package authority

// believe has the answer chosen for the network that the query names (RFC 7871
// section 7.2.1), if its sender is believed: the response then says for how much
// of that it holds. What the client may ask goes by its own address still, as
// anyone can write any network.
func (s *scratch) believe() bool {
	if !contains(s.p.subnets, s.client) {
		return false // section 7.2.1: as if the option were not known
	}
	s.b.Subnet(&s.q.Subnet)
	if s.q.Subnet.Bits > 0 { // section 7.1.2: without any, the resolver itself is the client
		s.req.Client, s.req.Bits = s.q.Subnet.Addr, s.q.Subnet.Bits
	}
	return true
}
