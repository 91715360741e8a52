package service

import (
	"maps"
	"slices"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// stringMax is the greatest size of a character-string (RFC 1035 section 3.3).
const stringMax = 255

// metaText is metadata as the RDATA of a TXT record, "key=value" sorted by key
// (RFC 6763 section 6.3). Pairs that fit no character-string are left out.
func metaText(meta map[string]string) []byte {
	var text []byte
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		if n := len(k) + 1 + len(meta[k]); k != "" && n <= stringMax {
			text = append(text, uint8(n))
			text = append(append(append(text, k...), '='), meta[k]...)
		}
	}
	return text
}

// Append implements zones.RRset.
func (s *txtSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: s.service.TTL(), EDE: zones.EDENone}
	state(s.service, &res, r.Now)
	return one(res, b.RR(r.Section, owner, wire.TypeTXT, wire.ClassIN, res.TTL, s.txt))
}

// All implements zones.RRset.
func (s *txtSet) All(yield func([]byte) bool) { yield(s.txt) }

// whyTTL is the TTL of explanations in seconds: they are of the moment.
const whyTTL = 1

// Append implements zones.RRset: a record an instance, "web-1 in: passing". What
// does not fit is left to a stream.
func (s *whySet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	res := zones.Result{TTL: whyTTL, EDE: zones.EDENone}
	svc := (*pool.Service)(s)
	state(svc, &res, r.Now)
	var text [1024]byte // cut to stringMax in the end
	for i := range uint32(svc.Len()) {
		if !b.RR(r.Section, owner, wire.TypeTXT, wire.ClassIN, res.TTL, why(svc, text[:0], i)) {
			res.Truncated = true
			break
		}
		res.Answers++
	}
	return res
}

// why appends the RDATA for instance i, one character-string.
func why(s *pool.Service, dst []byte, i uint32) []byte {
	dst = append(dst, 0)
	dst = append(dst, s.Label(i)[1:]...)
	if s.In(i) {
		dst = append(dst, " in: "...)
	} else {
		dst = append(dst, " out: "...)
	}
	dst = s.AppendWhy(dst, i)
	dst = dst[:min(len(dst), 1+stringMax)]
	dst[0] = uint8(len(dst) - 1)
	return dst
}

// All implements zones.RRset.
func (s *whySet) All(yield func([]byte) bool) {
	svc := (*pool.Service)(s)
	for i := range uint32(svc.Len()) {
		if !yield(why(svc, nil, i)) {
			return
		}
	}
}
