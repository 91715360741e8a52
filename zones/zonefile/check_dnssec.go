package zonefile

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// nsec3HashOctets is the length of SHA-1, the one hash of NSEC3 (RFC 5155 section 11).
const nsec3HashOctets = 20

// checkDNSSEC holds r against where records of its type may be, and against the
// keys of the zone.
func (l *loader) checkDNSSEC(r *record) {
	owner := presentation(r.owner.name)
	atApex := bytes.Equal(r.owner.name, l.apex.Wire())
	switch r.typ {
	case wire.TypeDS: // RFC 4035 section 2.4
		switch {
		case atApex:
			l.errorf(r, "DS of %s: it belongs to the zone above, at the delegation", owner)
		case r.owner.first(wire.TypeNS) == nil:
			l.errorf(r, "DS of %s: no NS record delegates that name", owner)
		}
	case wire.TypeNSEC3:
		l.checkHashes(r, owner)
	case wire.TypeNSEC3PARAM:
		if len(r.rdata) >= 2 && r.rdata[1] != 0 {
			l.warnf(r, "NSEC3PARAM of %s: its flags are not 0, so that it is ignored (RFC 5155 section 4.1.2)", owner)
		}
		if len(r.rdata) >= 4 && binary.BigEndian.Uint16(r.rdata[2:]) > zones.NSEC3Iterations {
			l.warnf(r, "NSEC3PARAM of %s: with more than %d iterations nothing is proven by NSEC3 (RFC 9276 section 3.2)", owner, zones.NSEC3Iterations)
		}
	case wire.TypeCDS, wire.TypeCDNSKEY:
		switch {
		case !atApex:
			l.warnf(r, "%s of %s: only the zone's apex has one (RFC 7344 section 4.1)", r.typ, owner)
		case !isDelete(r) && r.owner.first(wire.TypeDNSKEY) != nil && !l.describesKey(r):
			l.errorf(r, "%s of %s: no DNSKEY of the zone is what it describes (RFC 7344 section 4.1)", r.typ, owner)
		}
	}
}

// checkHashes wants both hashes of an NSEC3 to be as long as their algorithm makes
// them (RFC 5155 sections 3.1.7 and 3.3).
func (l *loader) checkHashes(r *record, owner string) {
	label := r.owner.name[1 : 1+int(r.owner.name[0])]
	hash, err := base32hex.DecodeString(strings.ToUpper(string(label)))
	switch {
	case err != nil:
		l.errorf(r, "NSEC3 of %s: its first label is no hash in base32hex", owner)
	case r.rdata[0] == dns.SHA1 && (len(hash) != nsec3HashOctets || nsec3Next(r.rdata) != nsec3HashOctets):
		l.errorf(r, "NSEC3 of %s: hashes of %d and %d octets, SHA-1 has %d", owner, len(hash), nsec3Next(r.rdata), nsec3HashOctets)
	}
}

// nsec3Next is the length of the next hashed owner, which stands after algorithm,
// flags, iterations, and the salt with its length.
func nsec3Next(rdata []byte) int {
	if len(rdata) < 5 || len(rdata) < 6+int(rdata[4]) {
		return 0
	}
	return int(rdata[5+int(rdata[4])])
}

// isDelete reports whether a CDS or CDNSKEY asks for the DS to be taken away,
// which algorithm 0 does (RFC 8078 section 4). It is the fourth octet of a CDNSKEY
// and the third of a CDS.
func isDelete(r *record) bool {
	at := 2
	if r.typ == wire.TypeCDNSKEY {
		at = 3
	}
	return len(r.rdata) > at && r.rdata[at] == 0
}

// describesKey reports whether a CDS or CDNSKEY is of one of the apex' keys.
func (l *loader) describesKey(r *record) bool {
	for _, key := range r.owner.records {
		if key.typ != wire.TypeDNSKEY || len(key.rdata) < 4 {
			continue
		}
		if r.typ == wire.TypeCDNSKEY {
			if bytes.Equal(key.rdata, r.rdata) {
				return true
			}
			continue
		}
		if len(r.rdata) < 4 {
			return false
		}
		rr, _, err := dns.UnpackRRWithHeader(dns.RR_Header{
			Name: l.apex.String(), Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Rdlength: uint16(len(key.rdata)),
		}, key.rdata, 0)
		dnskey, ok := rr.(*dns.DNSKEY)
		if err != nil || !ok {
			continue
		}
		ds := dnskey.ToDS(r.rdata[3])
		if ds == nil { // a digest that nobody here can make: the tag must do
			if dnskey.KeyTag() == binary.BigEndian.Uint16(r.rdata) && dnskey.Algorithm == r.rdata[2] {
				return true
			}
			continue
		}
		if ds.KeyTag == binary.BigEndian.Uint16(r.rdata) && ds.Algorithm == r.rdata[2] && strings.EqualFold(ds.Digest, hex.EncodeToString(r.rdata[4:])) {
			return true
		}
	}
	return false
}
