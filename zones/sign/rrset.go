package sign

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/musterdns/muster/dnsserver/wire"
)

// How long signatures hold, in seconds. They begin an hour ago, so that a client whose
// clock is late takes them, and their ends are spread, so that they are not all renewed
// at once.
const (
	slack    = 3600
	validity = 8 * 86400
	spread   = 86400
	// Refresh is the age in seconds from which on they are made anew: far from their
	// end, for what caches and secondaries hold of them.
	Refresh = 86400
)

// rrset is records of one owner and type, to be signed.
type rrset struct {
	owner  []byte // lower case
	typ    wire.Type
	ttl    uint32
	rdatas [][]byte // canonical
}

// canonicalize puts the set in canonical form: RDATA sorted, each once (RFC 4034
// section 6.3).
func (s *rrset) canonicalize() {
	for i := range s.rdatas {
		s.rdatas[i] = canonical(s.typ, s.rdatas[i])
	}
	slices.SortFunc(s.rdatas, bytes.Compare)
	s.rdatas = slices.CompactFunc(s.rdatas, bytes.Equal)
}

// sign is the RDATA of the set's RRSIG record by a key (RFC 4034 section 3.1). now is in
// seconds since 1970.
func (s *rrset) sign(k *Key, now uint32) ([]byte, error) {
	labels := 0
	for i := 0; s.owner[i] != 0; i += 1 + int(s.owner[i]) {
		labels++
	}
	if s.owner[0] == 1 && s.owner[1] == '*' {
		labels-- // section 3.1.3
	}
	expires := now + validity + s.jitter()
	head := binary.BigEndian.AppendUint16(nil, uint16(s.typ))
	head = append(head, byte(k.Algorithm), byte(labels))
	for _, v := range [...]uint32{s.ttl, expires, now - slack} {
		head = binary.BigEndian.AppendUint32(head, v)
	}
	head = binary.BigEndian.AppendUint16(head, k.Tag)
	head = append(head, k.Zone.Wire()...)
	data := slices.Clone(head) // section 3.1.8.1
	for _, rdata := range s.rdatas {
		data = append(data, s.owner...)
		data = binary.BigEndian.AppendUint16(data, uint16(s.typ))
		data = binary.BigEndian.AppendUint16(data, uint16(wire.ClassIN))
		data = binary.BigEndian.AppendUint32(data, s.ttl)
		data = binary.BigEndian.AppendUint16(data, uint16(len(rdata)))
		data = append(data, rdata...)
	}
	signature, err := k.sign(data)
	return append(head, signature...), err
}

// jitter spreads ends by owner and type.
func (s *rrset) jitter() uint32 {
	h := uint32(2166136261) // FNV-1a
	for _, b := range s.owner {
		h = (h ^ uint32(b)) * 16777619
	}
	return (h ^ uint32(s.typ)*2654435761) % spread
}

// names says where the names in the RDATA of a type stand that are lower-cased in
// canonical form (RFC 4034 section 6.2, RFC 6840 section 5.1): behind so many octets,
// and how many.
var names = map[wire.Type]struct{ skip, count int }{
	wire.TypeNS: {0, 1}, wire.TypeMD: {0, 1}, wire.TypeMF: {0, 1}, wire.TypeCNAME: {0, 1}, wire.TypeSOA: {0, 2},
	wire.TypeMB: {0, 1}, wire.TypeMG: {0, 1}, wire.TypeMR: {0, 1}, wire.TypePTR: {0, 1}, wire.TypeMINFO: {0, 2},
	wire.TypeMX: {2, 1}, wire.TypeRP: {0, 2}, wire.TypeAFSDB: {2, 1}, wire.TypeRT: {2, 1}, wire.TypeKX: {2, 1},
	wire.TypeSRV: {6, 1}, wire.TypeDNAME: {0, 1},
}

// canonical is RDATA in canonical form.
func canonical(t wire.Type, rdata []byte) []byte {
	where, ok := names[t]
	if t == wire.TypeNAPTR && len(rdata) > 4 { // order, preference, and three strings
		where.skip, where.count, ok = 4, 1, true
		for range 3 {
			if where.skip >= len(rdata) {
				return rdata
			}
			where.skip += 1 + int(rdata[where.skip])
		}
	}
	if !ok || where.skip >= len(rdata) {
		return rdata
	}
	out := bytes.Clone(rdata)
	at := where.skip
	for range where.count {
		for at < len(out) && out[at] != 0 {
			end := min(at+1+int(out[at]), len(out))
			for i := at + 1; i < end; i++ {
				if out[i] >= 'A' && out[i] <= 'Z' {
					out[i] += 'a' - 'A'
				}
			}
			at = end
		}
		at++
	}
	return out
}

// bitmap is a list of types as NSEC has it (RFC 4034 section 4.1.2).
func bitmap(types []wire.Type) []byte {
	slices.Sort(types)
	var out []byte
	for len(types) > 0 {
		window := types[0] >> 8
		var bits [32]byte
		size := 0
		for len(types) > 0 && types[0]>>8 == window {
			low := int(types[0] & 0xff)
			bits[low/8] |= 0x80 >> (low % 8)
			size, types = low/8+1, types[1:]
		}
		out = append(append(out, byte(window), byte(size)), bits[:size]...)
	}
	return out
}
