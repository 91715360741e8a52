package wire

import "encoding/binary"

// LeastTTL is the least TTL of a response's records, the OPT record left out, and
// for a negative one that of its SOA or the SOA's minimum if that is less (RFC 2308
// section 5). Not ok: it has none, or is malformed.
func LeastTTL(msg []byte) (ttl uint32, ok bool) {
	if len(msg) < HeaderSize {
		return 0, false
	}
	at := skipQuestions(msg)
	counts := [...]int{int(binary.BigEndian.Uint16(msg[6:])), int(binary.BigEndian.Uint16(msg[8:])), int(binary.BigEndian.Uint16(msg[10:]))}
	ttl = ^uint32(0)
	for section, n := range counts {
		for range n {
			if at == 0 {
				return 0, false
			}
			if at = skipName(msg, at); at == 0 || at+rrFixed > len(msg) {
				return 0, false
			}
			t, of := Type(binary.BigEndian.Uint16(msg[at:])), binary.BigEndian.Uint32(msg[at+4:])
			end := at + rrFixed + int(binary.BigEndian.Uint16(msg[at+8:]))
			if end > len(msg) {
				return 0, false
			}
			if t == TypeSOA && section == int(Authority) && counts[0] == 0 && end-at-rrFixed >= 20 {
				of = min(of, binary.BigEndian.Uint32(msg[end-4:]))
			}
			if t != TypeOPT && t != TypeTSIG {
				ttl, ok = min(ttl, of), true
			}
			at = end
		}
	}
	return ttl, ok
}
