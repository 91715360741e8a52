package pool

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/musterdns/muster/registry"
)

// record is one registered instance, packed: one object without pointers, which
// the writer and every published form of the service share. It never changes.
//
//	0  incarnation, 8 octets        15 IPv4 addresses, 1 26 offset of meta, 4
//	8  port, 2     10 weight, 2     16 IPv6 addresses, 1 30 offset of the rest, 4
//	12 priority, 2                  18 TTL in ms, 4      34 addresses, id label
//	14 flags, 1                     22 offset of zone, 4    and then the named ports
//
// Strings have a length before them; labels are in wire form, so that names are
// composed by copying.
type record []byte

const (
	recordHeader = 34

	flagLeased   = 1 << 0
	flagFirstIs6 = 1 << 1 // the first address given was an IPv6 one
	flagChecks   = 1 << 2 // Checks was not nil
)

var le = binary.LittleEndian

// newRecord packs i. What exceeds the limits of package registry was refused by
// the decoders; strings of more than 255 octets cannot occur in what is kept
// here as such.
func newRecord(i *registry.Instance) record {
	n4 := 0
	for _, a := range i.Addresses {
		if a.Unmap().Is4() {
			n4++
		}
	}
	n6 := len(i.Addresses) - n4
	r := make(record, recordHeader, recordHeader+n4*4+n6*16+len(i.ID)+24)
	le.PutUint64(r[0:], uint64(i.Incarnation))
	le.PutUint16(r[8:], i.Port)
	le.PutUint16(r[10:], i.Weight)
	le.PutUint16(r[12:], i.Priority)
	r[14] = flagsOf(i)
	r[15], r[16] = uint8(n4), uint8(n6)
	le.PutUint32(r[18:], uint32(min(i.TTL, registry.TTLMax)/time.Millisecond))
	for _, a := range i.Addresses {
		if a = a.Unmap(); a.Is4() {
			b := a.As4()
			r = append(r, b[:]...)
		}
	}
	for _, a := range i.Addresses {
		if a = a.Unmap(); !a.Is4() {
			b := a.As16()
			r = append(r, b[:]...)
		}
	}
	r = appendShort(r, i.ID)
	r = appendPorts(r, i.Ports)
	le.PutUint32(r[22:], uint32(len(r)))
	r = appendShort(r, i.Zone)
	r = append(r, uint8(len(i.Tags)))
	for _, t := range i.Tags {
		r = appendShort(r, t)
	}
	le.PutUint32(r[26:], uint32(len(r)))
	r, long := appendMeta(r, i.Meta)
	le.PutUint32(r[30:], uint32(len(r)))
	r = appendShort(r, i.Region)
	r = append(r, uint8(len(long)/2))
	for _, s := range long {
		r = appendLong(r, s)
	}
	r = appendChecks(r, i.Checks)
	return slices.Clip(r)
}

func flagsOf(i *registry.Instance) uint8 {
	var f uint8
	if i.Leased {
		f |= flagLeased
	}
	if len(i.Addresses) > 0 && !i.Addresses[0].Unmap().Is4() {
		f |= flagFirstIs6
	}
	if i.Checks != nil {
		f |= flagChecks
	}
	return f
}

// appendPorts packs the named ports.
func appendPorts(r record, ports []registry.Port) record {
	r = append(r, uint8(len(ports)))
	for _, p := range ports {
		r = le.AppendUint16(r, p.Number)
		r = append(r, protoOf(p.Proto))
		r = appendShort(r, p.Name)
	}
	return r
}

// appendMeta packs metadata as the character-strings of a TXT record, "key=value"
// sorted by key (RFC 6763 section 6.3), and returns the pairs that fit none.
func appendMeta(r record, meta map[string]string) (_ record, long []string) {
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		v := meta[k]
		if len(k)+1+len(v) > 255 || k == "" || strings.Contains(k, "=") {
			long = append(long, k, v)
			continue
		}
		r = append(r, uint8(len(k)+1+len(v)))
		r = append(r, k...)
		r = append(r, '=')
		r = append(r, v...)
	}
	return r, long
}

// The flags of a check.
const (
	checkInsecure = 1 << iota
	checkKeep
)

func appendChecks(r record, checks []registry.Check) record {
	r = append(r, uint8(len(checks)))
	for i := range checks {
		c := &checks[i]
		for _, s := range []string{c.Type, c.Port, c.Path, c.Host, c.Method, c.Status, c.Service, c.Name, c.Record} {
			r = appendLong(r, s)
		}
		flags := uint8(0)
		if c.Insecure {
			flags |= checkInsecure
		}
		if c.Keep {
			flags |= checkKeep
		}
		r = append(r, flags, uint8(len(c.Command)))
		for _, arg := range c.Command {
			r = appendLong(r, arg)
		}
		r = le.AppendUint64(r, uint64(c.Interval))
		r = le.AppendUint64(r, uint64(c.Timeout))
		r = le.AppendUint32(r, uint32(c.Rise))
		r = le.AppendUint32(r, uint32(c.Fall))
	}
	return r
}

func appendShort(r record, s string) record {
	return append(append(r, uint8(len(s))), s...)
}

func appendLong(r record, s string) record {
	return append(le.AppendUint16(r, uint16(len(s))), s...)
}

func (r record) incarnation() int64 { return int64(le.Uint64(r[0:])) }
func (r record) port() uint16       { return le.Uint16(r[8:]) }
func (r record) weight() uint16     { return le.Uint16(r[10:]) }
func (r record) priority() uint16   { return le.Uint16(r[12:]) }
func (r record) count4() int        { return int(r[15]) }
func (r record) count6() int        { return int(r[16]) }
func (r record) ttlMillis() uint32  { return le.Uint32(r[18:]) }

func (r record) addr4(i int) [4]byte  { return [4]byte(r[recordHeader+i*4:]) }
func (r record) addr6(i int) [16]byte { return [16]byte(r[recordHeader+r.count4()*4+i*16:]) }

// label is the id in wire form: its length and its octets.
func (r record) label() []byte {
	at := recordHeader + r.count4()*4 + r.count6()*16
	return r[at : at+1+int(r[at])]
}

// front is what faces have of a record: the addresses, IPv4 before IPv6, the
// label and the named ports.
func (r record) front() []byte { return r[recordHeader:le.Uint32(r[22:])] }

func (r record) id() []byte { return r.label()[1:] }

// filters is what names below the service can choose by: the packed ports, zone
// and tags.
func (r record) filters() []byte {
	at := recordHeader + r.count4()*4 + r.count6()*16
	return r[at+1+int(r[at]) : le.Uint32(r[26:])]
}

// txt is the metadata as the RDATA of a TXT record; empty: none.
func (r record) txt() []byte { return r[le.Uint32(r[26:]):le.Uint32(r[30:])] }

// addresses returns them as they were given, but for the order of families.
func (r record) addresses() []netip.Addr {
	four := make([]netip.Addr, 0, r.count4()+r.count6())
	for i := range r.count4() {
		four = append(four, netip.AddrFrom4(r.addr4(i)))
	}
	var six []netip.Addr
	for i := range r.count6() {
		six = append(six, netip.AddrFrom16(r.addr6(i)))
	}
	if r[14]&flagFirstIs6 != 0 {
		return append(six, four...)
	}
	return append(four, six...)
}

// protocols of named ports, as packed.
const (
	protoTCP = 1
	protoUDP = 2
)

func protoOf(s string) uint8 {
	if s == "udp" {
		return protoUDP
	}
	return protoTCP
}

func protoName(p uint8) string {
	if p == protoUDP {
		return "udp"
	}
	return "tcp"
}

// reader takes a packed part apart.
type reader struct{ b []byte }

func (r *reader) u8() uint8   { v := r.b[0]; r.b = r.b[1:]; return v }
func (r *reader) u16() uint16 { v := le.Uint16(r.b); r.b = r.b[2:]; return v }
func (r *reader) u32() uint32 { v := le.Uint32(r.b); r.b = r.b[4:]; return v }
func (r *reader) u64() uint64 { v := le.Uint64(r.b); r.b = r.b[8:]; return v }

func (r *reader) take(n int) []byte { v := r.b[:n]; r.b = r.b[n:]; return v }
func (r *reader) short() []byte     { return r.take(int(r.u8())) }
func (r *reader) long() string      { return string(r.take(int(r.u16()))) }

// eachFilter calls f with every zone, port and tag of the instance that can be
// a filter, each once.
func (r record) eachFilter(f func(kind FilterKind, name []byte, proto uint8)) {
	in := reader{r.filters()}
	for range in.u8() {
		in.u16()
		proto, name := in.u8(), in.short()
		f(FilterPort, name, proto)
	}
	if zone := in.short(); isLabel(zone) {
		f(FilterZone, zone, 0)
	}
	for range in.u8() {
		if tag := in.short(); isLabel(tag) {
			f(FilterTag, tag, 0)
		}
	}
}

// region is the instance's region; empty: none.
func (r record) region() string {
	in := reader{r[le.Uint32(r[30:]):]}
	return string(in.short())
}

// instance unpacks the record; service is the name of its service.
func (r record) instance(service string) registry.Instance {
	i := registry.Instance{
		Service: service, ID: string(r.id()), Addresses: r.addresses(),
		Port: r.port(), Weight: r.weight(), Priority: r.priority(),
		TTL:         time.Duration(r.ttlMillis()) * time.Millisecond,
		Incarnation: r.incarnation(), Leased: r.leased(),
	}
	in := reader{r.filters()}
	for range in.u8() {
		number, proto, name := in.u16(), in.u8(), in.short()
		i.Ports = append(i.Ports, registry.Port{Name: string(name), Number: number, Proto: protoName(proto)})
	}
	i.Zone = string(in.short())
	for range in.u8() {
		i.Tags = append(i.Tags, string(in.short()))
	}
	in = reader{r[le.Uint32(r[30:]):]}
	i.Region = string(in.short())
	i.Meta = r.meta(&in)
	if r[14]&flagChecks != 0 {
		i.Checks = readChecks(&in)
	}
	return i
}

// checks unpacks the instance's own checks; nil: it has the service's.
func (r record) checks() []registry.Check {
	if r[14]&flagChecks == 0 {
		return nil
	}
	in := reader{r[le.Uint32(r[30:]):]}
	in.short()
	for range in.u8() {
		in.long()
		in.long()
	}
	return readChecks(&in)
}

// meta reads the metadata: the TXT part, then the long pairs from in.
func (r record) meta(in *reader) map[string]string {
	var m map[string]string
	set := func(k, v string) {
		if m == nil {
			m = map[string]string{}
		}
		m[k] = v
	}
	for txt := (reader{r.txt()}); len(txt.b) > 0; {
		k, v, _ := strings.Cut(string(txt.short()), "=")
		set(k, v)
	}
	for range in.u8() {
		k := in.long()
		set(k, in.long())
	}
	return m
}

func readChecks(in *reader) []registry.Check {
	checks := make([]registry.Check, in.u8())
	for i := range checks {
		c := &checks[i]
		for _, s := range []*string{&c.Type, &c.Port, &c.Path, &c.Host, &c.Method, &c.Status, &c.Service, &c.Name, &c.Record} {
			*s = in.long()
		}
		flags := in.u8()
		c.Insecure, c.Keep = flags&checkInsecure != 0, flags&checkKeep != 0
		for range in.u8() {
			c.Command = append(c.Command, in.long())
		}
		c.Interval, c.Timeout = time.Duration(in.u64()), time.Duration(in.u64())
		c.Rise, c.Fall = int(int32(in.u32())), int(int32(in.u32()))
	}
	return checks
}

// leased reports whether the instance goes with its registrant's lease.
func (r record) leased() bool { return r[14]&flagLeased != 0 }

// identity is the stable hash of an instance's name, the same in every server
// and after every restart, since the hash policy's choices depend on it: FNV-1a
// with a last mix, because its high bits are poor for short names.
func identity(service, id string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(service) {
		h = (h ^ uint64(service[i])) * 1099511628211
	}
	h = (h ^ '/') * 1099511628211
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// isLabel reports whether s can be a name of its own below a service: letters,
// digits and inner hyphens, 63 octets at most (RFC 1035 section 2.3.1).
func isLabel(s []byte) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// appendWire appends a service's name in wire form without a root.
func appendWire(dst []byte, name string) []byte {
	for label := range strings.SplitSeq(name, ".") {
		dst = append(dst, uint8(len(label)))
		dst = append(dst, label...)
	}
	return dst
}

// apexWire is a zone's name in wire form, root included.
func apexWire(zone string) string {
	zone = strings.TrimSuffix(zone, ".")
	if zone == "" {
		return "\x00"
	}
	return string(append(appendWire(nil, zone), 0))
}

// WireName is a service's name as registered ("web.prod") in the form that
// View.Find takes.
func WireName(name string) []byte { return appendWire(nil, name) }
