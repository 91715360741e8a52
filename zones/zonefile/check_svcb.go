package zonefile

import (
	"bytes"
	"encoding/binary"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
)

// checkSVCB holds a service binding against RFC 9460, and that of a DNS server
// against RFC 9461.
func (l *loader) checkSVCB(r *record) {
	if r.typ != wire.TypeSVCB && r.typ != wire.TypeHTTPS || len(r.rdata) < 3 {
		return
	}
	owner := presentation(r.owner.name)
	var target wire.Name
	_, end, err := dns.UnpackDomainName(r.rdata, 2)
	if err != nil || !target.Set(r.rdata[2:end]) {
		l.errorf(r, "%s of %s: malformed target", r.typ, owner)
		return
	}
	params, ok := svcParams(r.rdata[end:])
	if !ok {
		l.errorf(r, "%s of %s: malformed parameters", r.typ, owner)
		return
	}
	if binary.BigEndian.Uint16(r.rdata) == 0 {
		if len(params) > 0 { // RFC 9460 section 2.4.2
			l.errorf(r, "%s of %s: an alias (priority 0) has no parameters", r.typ, owner)
		}
		return
	}
	for mandatory := params[dns.SVCB_MANDATORY]; len(mandatory) >= 2; mandatory = mandatory[2:] {
		key := dns.SVCBKey(binary.BigEndian.Uint16(mandatory))
		if _, ok := params[key]; !ok { // RFC 9460 section 8
			l.errorf(r, "%s of %s: %s is mandatory, and is not there", r.typ, owner, key)
		}
	}
	if groups, ok := params[keyGroups]; ok && !distinct(groups) {
		l.errorf(r, "%s of %s: tls-supported-groups must have numbers, each once", r.typ, owner)
	}
	if !isHost(&target, '-') {
		l.errorf(r, "%s of %s: its target %s is no name of a host", r.typ, owner, target.String())
	}
	if r.typ == wire.TypeSVCB && isDNSService(r.owner.name) {
		l.checkDNSService(r, owner, params)
	}
}

// keyGroups is the number of tls-supported-groups (draft-ietf-tls-key-share-prediction).
const keyGroups dns.SVCBKey = 9

// distinct reports whether data is numbers of two octets, one at least and each once.
func distinct(data []byte) bool {
	seen := map[uint16]bool{}
	for ; len(data) >= 2; data = data[2:] {
		n := binary.BigEndian.Uint16(data)
		if seen[n] {
			return false
		}
		seen[n] = true
	}
	return len(data) == 0 && len(seen) > 0
}

// checkDNSService wants to know how the DNS server is spoken to (RFC 9461 section
// 4.1) and, over HTTP, where (section 5).
func (l *loader) checkDNSService(r *record, owner string, params map[dns.SVCBKey][]byte) {
	alpn, ok := params[dns.SVCB_ALPN]
	if !ok {
		l.errorf(r, "SVCB of %s: a DNS server needs alpn (RFC 9461 section 4.1)", owner)
		return
	}
	if _, ok := params[dns.SVCB_DOHPATH]; !ok && speaksHTTP(alpn) {
		l.errorf(r, "SVCB of %s: a DNS server over HTTP needs dohpath (RFC 9461 section 5)", owner)
	}
}

// svcParams takes apart what follows the target.
func svcParams(text []byte) (params map[dns.SVCBKey][]byte, ok bool) {
	params = map[dns.SVCBKey][]byte{}
	for len(text) > 0 {
		if len(text) < 4 || len(text) < 4+int(binary.BigEndian.Uint16(text[2:])) {
			return nil, false
		}
		end := 4 + int(binary.BigEndian.Uint16(text[2:]))
		params[dns.SVCBKey(binary.BigEndian.Uint16(text))] = text[4:end]
		text = text[end:]
	}
	return params, true
}

// speaksHTTP reports whether one of the protocols is HTTP. Protocols that were
// meant to be two, and are one with a comma, count.
func speaksHTTP(alpn []byte) bool {
	for len(alpn) > 0 && len(alpn) > int(alpn[0]) {
		for id := range bytes.SplitSeq(alpn[1:1+int(alpn[0])], []byte(",")) {
			if s := string(id); s == "h2" || s == "h3" || s == "http/1.1" {
				return true
			}
		}
		alpn = alpn[1+int(alpn[0]):]
	}
	return false
}

// isDNSService reports whether a name in wire form is _dns.X or _PORT._dns.X
// (RFC 9461 section 3).
func isDNSService(name []byte) bool {
	const label = "\x04_dns"
	if bytes.HasPrefix(name, []byte(label)) {
		return true
	}
	n := int(name[0])
	return n > 1 && name[1] == '_' && bytes.HasPrefix(name[1+n:], []byte(label))
}

// isHost reports whether name may be a host's: letters, digits and hyphens, these
// neither first nor last (RFC 1123 section 2.1), and what else is let pass. The
// root stands for none.
func isHost(name *wire.Name, also byte) bool {
	for w := name.Wire(); w[0] > 0; w = w[1+int(w[0]):] {
		label := w[1 : 1+int(w[0])]
		if label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != also {
				return false
			}
		}
	}
	return true
}
