package service

import (
	"encoding/binary"
	"net/netip"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// The prefixes that count as one client under hash_on: subnet: what one site
// usually has.
const (
	subnet4 = 24
	subnet6 = 56
)

// hashBytes is FNV-1a with a last mix: the same in every server and after every
// restart, as the hash policy needs.
func hashBytes(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return mix(h)
}

// mix is SplitMix64's finalizer.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// hashAddr hashes an address's first bits; 4-in-6 counts as IPv4.
func hashAddr(a netip.Addr, on pool.HashOn) uint64 {
	b := a.As16()
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	if on == pool.HashSubnet {
		if a.Is4() || a.Is4In6() {
			low &^= 1<<(32-subnet4) - 1
		} else {
			high, low = high&^(1<<(64-subnet6)-1), 0
		}
	}
	return mix(mix(high) ^ low)
}

// crowdEvery is of how many questions one is noted, so that cores seldom write to
// one counter.
const crowdEvery = 16

// request turns a question into what a picker goes by.
func request(s *pool.Service, r *zones.Request) (q lb.Request, hashed bool) {
	q.Rand = r.Rand
	switch {
	case r.Hashed:
		q.Hash = r.Hash
	case !s.Hashes():
		return q, false
	case s.HashOn() == pool.HashName:
		// Only `_hash` names bring a name to hash; without one, any will do.
		q.Hash = r.Rand
	default:
		q.Hash = hashAddr(r.Client, s.HashOn())
		if r.Rand%crowdEvery == 0 {
			s.Crowd().Note(q.Hash)
		}
	}
	return q, true
}

// scope is how many bits of the client request hashed.
func scope(s *pool.Service, r *zones.Request) uint8 {
	switch {
	case r.Hashed || !s.Hashes() || s.HashOn() == pool.HashName:
		return 0
	case s.HashOn() != pool.HashSubnet:
		return r.Bits
	case r.Client.Is4() || r.Client.Is4In6():
		return min(r.Bits, subnet4)
	}
	return min(r.Bits, subnet6)
}
