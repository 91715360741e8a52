package service

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// The ports that service bindings are made from, by name.
const (
	portHTTP  = "http"
	portHTTPS = "https"
)

// metaALPN is the key of a service's metadata that lists the protocols its
// instances speak behind TLS, "h2,http/1.1", for the parameter alpn. Without it
// the parameter is left out, which says HTTP/1.1 (RFC 9460 section 7.1.2).
const metaALPN = "alpn"

// The parameters of a service binding (RFC 9460 section 14.3.2).
const (
	keyALPN     = 1
	keyPort     = 3
	keyIPv4Hint = 4
	keyIPv6Hint = 6
)

// binding finds a service's HTTPS or SVCB set. HTTPS is made from the port named
// https alone: the record tells browsers not to use http any more (RFC 9460
// section 9.5). SVCB promises nothing of the kind, and falls back to http.
func binding(s *pool.Service, typ wire.Type, a *zones.Answer) {
	if hasVIPs(s) {
		return // which ports the proxy behind them listens at is not known
	}
	set := s.Filter(pool.FilterPort, []byte(portHTTPS), false)
	if set == nil && typ == wire.TypeSVCB {
		set = s.Filter(pool.FilterPort, []byte(portHTTP), false)
	}
	if set != nil {
		found(a, (*partSet)(own(a, set, 0, typ)))
	}
}

// alpnParam is the parameter alpn of a service with the metadata; empty: none.
// Protocols that are no ALPN identifiers, 1 to 255 octets, are left out.
func alpnParam(meta map[string]string) []byte {
	var ids []byte
	for id := range strings.SplitSeq(meta[metaALPN], ",") {
		if id = strings.TrimSpace(id); id != "" && len(id) <= 255 && len(ids)+1+len(id) <= 1024 {
			ids = append(append(ids, uint8(len(id))), id...)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	head := binary.BigEndian.AppendUint16(nil, keyALPN)
	return append(binary.BigEndian.AppendUint16(head, uint16(len(ids))), ids...)
}

// bindingMax is the greatest RDATA that is built: a target, alpn as alpnParam
// bounds it, and as many hints as fit the rest.
const bindingMax = 2048

// bindings picks instances as for their addresses, for clients choose among
// bindings of one priority without weights (RFC 9460 section 2.4.1), and writes
// a record for each. Under hash the priority is the rank.
func (d *draw) bindings(b *wire.Builder, owner wire.Ref, r *zones.Request, typ wire.Type, res *zones.Result) {
	d.pick(d.wanted(), r, res)
	var buf [bindingMax]byte
	for rank, i := range r.Picks {
		priority := d.service.Priority(i)
		if d.hashed {
			priority = uint16(rank)
		}
		if !b.RR(r.Section, owner, typ, wire.ClassIN, res.TTL, rdataSVCB(d.set, buf[:0], i, priority)) {
			// Complete by policy as far as it goes, but for nothing at all or where
			// the policy is to give everything.
			res.Truncated = res.Answers == 0 || d.service.Everything()
			break
		}
		res.Answers++
	}
}

// rdataSVCB appends the RDATA of instance i's binding (RFC 9460 section 2.2):
// the instance's own name as the target, its port, and its addresses as hints.
// Parameters are in the order of their keys. A tier's priority is raised by one,
// since 0 would make an alias.
func rdataSVCB(s *pool.Set, dst []byte, i uint32, priority uint16) []byte {
	svc := s.Service()
	dst = binary.BigEndian.AppendUint16(dst, max(priority, priority+1))
	dst = append(append(dst, svc.Label(i)...), svc.Absolute()...)
	if s.Name() == portHTTPS {
		dst = append(dst, recordsOf(svc).alpn...)
	}
	dst = param(dst, keyPort, 2)
	dst = binary.BigEndian.AppendUint16(dst, portOf(s, i))
	for _, hint := range [...]struct {
		family pool.Family
		key    uint16
		octets int
	}{{pool.FamilyA, keyIPv4Hint, 4}, {pool.FamilyAAAA, keyIPv6Hint, 16}} {
		n := min(count(svc, i, hint.family), (bindingMax-len(dst)-4)/hint.octets)
		if n <= 0 {
			continue
		}
		dst = param(dst, hint.key, n*hint.octets)
		for k := range n {
			dst = appendAddress(dst, address(svc, i, hint.family, k))
		}
	}
	return dst
}

// param appends the head of a parameter.
func param(dst []byte, key uint16, size int) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(dst, key), uint16(size))
}

// appendAddress appends the octets of an address.
func appendAddress(dst []byte, a netip.Addr) []byte {
	if a.Is4() {
		four := a.As4()
		return append(dst, four[:]...)
	}
	six := a.As16()
	return append(dst, six[:]...)
}

// allBindings yields the bindings of all instances that may be answered.
func allBindings(s *pool.Set, yield func([]byte) bool) {
	each(s.Group(pool.FamilySRV), func(i uint32) bool {
		return yield(slices.Clip(rdataSVCB(s, nil, i, s.Service().Priority(i))))
	})
}
