package wire

import (
	"encoding/binary"
	"net/netip"
)

// Asked is the EDNS options of a query that a reply may answer, as a set.
type Asked uint8

// The options.
const (
	AskedNSID      Asked = 1 << iota // RFC 5001
	AskedKeepalive                   // RFC 7828
	AskedPadding                     // RFC 7830
	AskedCookie                      // RFC 7873: Query.Cookie is set
	AskedSubnet                      // RFC 7871: Query.Subnet is set
	AskedExpire                      // RFC 7314
)

// Codes of EDNS options.
const (
	optionNSID      uint16 = 3
	optionSubnet    uint16 = 8
	OptionExpire    uint16 = 9
	optionCookie    uint16 = 10
	optionKeepalive uint16 = 11
	optionPadding   uint16 = 12
	optionEDE       uint16 = 15
)

// Sizes of cookies in octets (RFC 7873 section 4).
const (
	clientCookieSize    = 8
	serverCookieSizeMin = 8
	serverCookieSizeMax = 32
)

// Subnet is what a resolver says of its client's network (RFC 7871 section 6).
type Subnet struct {
	// Addr is the network's address, of Bits leading bits and zeros behind them;
	// not valid when Bits is 0, by which the client asks that its address be of
	// no account (section 7.1.2).
	Addr   netip.Addr
	Bits   uint8
	family uint16
}

// Families of addresses, RFC 7871 section 6.
const (
	familyNone = 0
	familyIPv4 = 1
	familyIPv6 = 2
)

// option notes an option of the query; false when it is malformed. Of several
// cookies the first counts (RFC 7873 section 5.2), and so we do with subnets.
func (q *Query) option(code uint16, data []byte) bool {
	switch code {
	case optionNSID:
		q.Asked |= AskedNSID // RFC 5001 section 2.1: what the option holds does not count
	case optionKeepalive:
		if len(data) == 0 { // RFC 7828 section 3.2.1: clients give no timeout
			q.Asked |= AskedKeepalive
		}
	case OptionExpire:
		q.Asked |= AskedExpire // RFC 7314 section 2: empty in queries
	case optionPadding:
		q.Asked |= AskedPadding // RFC 7830 section 3: any octets do
	case optionCookie:
		return q.Asked&AskedCookie != 0 || q.cookie(data)
	case optionSubnet:
		return q.Asked&AskedSubnet != 0 || q.subnet(data)
	}
	return true
}

// cookie notes a client cookie, with the server cookie behind it if there is
// one: RFC 7873 section 5.2.2 has other lengths refused.
func (q *Query) cookie(data []byte) bool {
	server := len(data) - clientCookieSize
	if server != 0 && (server < serverCookieSizeMin || server > serverCookieSizeMax) {
		return false
	}
	q.Asked |= AskedCookie
	q.Cookie = data
	return true
}

// subnet notes a client subnet. It is malformed when its address is not of as
// many octets as its prefix needs, or has bits behind that (RFC 7871 section 6),
// when it has a scope (section 6: 0 in queries), or when its family is not known
// (section 7.1.2: a prefix of no length may be of none).
func (q *Query) subnet(data []byte) bool {
	if len(data) < 4 {
		return false
	}
	n := Subnet{family: binary.BigEndian.Uint16(data), Bits: data[2]}
	scope, addr := data[3], data[4:]
	var full [16]byte
	size := 0
	switch n.family {
	case familyNone:
	case familyIPv4:
		size = 4
	case familyIPv6:
		size = 16
	default:
		return false
	}
	bits := int(n.Bits)
	if scope != 0 || bits > 8*size || len(addr) != (bits+7)/8 {
		return false
	}
	if spare := -bits & 7; spare > 0 && addr[len(addr)-1]&(1<<spare-1) != 0 {
		return false
	}
	copy(full[:], addr)
	switch {
	case bits == 0:
	case size == 4:
		n.Addr = netip.AddrFrom4([4]byte(full[:]))
	default:
		n.Addr = netip.AddrFrom16(full)
	}
	q.Asked |= AskedSubnet
	q.Subnet = n
	return true
}

// NSID adds the server's name, which may be any octets (RFC 5001 section 2.3).
func (b *Builder) NSID(id []byte) { b.Option(optionNSID, id) }

// Cookie adds a cookie: the client's, and the server's behind it.
func (b *Builder) Cookie(client, server []byte) {
	if data, ok := b.addOption(optionCookie, len(client)+len(server)); ok {
		copy(data[copy(data, client):], server)
	}
}

// Keepalive tells how long an idle connection is kept, in units of 100 ms (RFC
// 7828 section 3.1).
func (b *Builder) Keepalive(units uint16) {
	if data, ok := b.addOption(optionKeepalive, 2); ok {
		binary.BigEndian.PutUint16(data, units)
	}
}

// Subnet answers the query's client subnet, with a scope of 0 until SetScope:
// family, prefix and address are given back (RFC 7871 section 7.2.1).
func (b *Builder) Subnet(n *Subnet) {
	size := (int(n.Bits) + 7) / 8
	data, ok := b.addOption(optionSubnet, 4+size)
	if !ok {
		return
	}
	binary.BigEndian.PutUint16(data, n.family)
	data[2], data[3] = n.Bits, 0
	b.scopeAt = b.nopt - size - 1
	if n.Bits > 0 {
		full := n.Addr.As16()
		if n.Addr.Is4() {
			copy(data[4:], full[12:12+size])
		} else {
			copy(data[4:], full[:size])
		}
	}
}

// SetScope says for how much of the address that Subnet gave back the answer
// holds (RFC 7871 section 7.2.1). Without Subnet it does nothing.
func (b *Builder) SetScope(bits uint8) {
	if b.scopeAt != 0 {
		b.opt[b.scopeAt] = bits
	}
}

// Pad has Finish fill the message up to a multiple of block octets, or as far as
// it may grow (RFC 8467 section 4.1). It does nothing without EDNS, or when there
// is no room for the option.
func (b *Builder) Pad(block int) {
	const header = 4
	if b.q.EDNS && b.pad == 0 && b.Room() >= header {
		b.pad = block
		b.kept += header
	}
}

// putPadding writes the padding option at buf[at:], behind all others, and
// returns where the message ends.
func (b *Builder) putPadding(at int) int {
	const header = 4
	end := (at + header + b.pad - 1) / b.pad * b.pad
	end = min(end, len(b.buf))
	w := b.buf[at:end]
	binary.BigEndian.PutUint16(w, optionPadding)
	binary.BigEndian.PutUint16(w[2:], uint16(len(w)-header))
	clear(w[header:]) // RFC 7830 section 3: zeros
	return end
}
