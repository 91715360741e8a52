package registry

import (
	"encoding/binary"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"
)

// The binary forms of records in a snapshot: several times faster to write and
// to read than the JSON of the registry, and exact.

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendTime writes a time to the nanosecond in UTC; the zero time is 0.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendUvarint(binary.AppendVarint(append(b, 1), t.Unix()), uint64(t.Nanosecond()))
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// appendList writes the number of elements plus one, and them; 0 is nil.
func appendList[T any](b []byte, list []T, element func([]byte, T) []byte) []byte {
	if list == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(list))+1)
	for _, v := range list {
		b = element(b, v)
	}
	return b
}

func appendMeta(b []byte, meta map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(meta)))
	if len(meta) == 0 {
		return b
	}
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		b = appendString(appendString(b, key), meta[key])
	}
	return b
}

func appendAddr(b []byte, a netip.Addr) []byte { return appendString(b, string(a.AsSlice())) }

func appendPort(b []byte, p Port) []byte {
	return appendString(binary.AppendUvarint(appendString(b, p.Name), uint64(p.Number)), p.Proto)
}

// The flags of a check; a command follows them when there is one. Files from
// before there were others than the first read the same.
const (
	checkInsecure = 1 << iota
	checkKeep
	checkCommand
)

func appendCheck(b []byte, k Check) []byte {
	for _, s := range [...]string{k.Type, k.Port, k.Path, k.Host, k.Method, k.Status, k.Service, k.Name, k.Record} {
		b = appendString(b, s)
	}
	flags := uint64(0)
	if k.Insecure {
		flags |= checkInsecure
	}
	if k.Keep {
		flags |= checkKeep
	}
	if k.Command != nil {
		flags |= checkCommand
	}
	b = binary.AppendUvarint(b, flags)
	if k.Command != nil {
		b = appendList(b, k.Command, appendString)
	}
	for _, n := range [...]int64{int64(k.Interval), int64(k.Timeout), int64(k.Rise), int64(k.Fall)} {
		b = binary.AppendVarint(b, n)
	}
	return b
}

func appendInstance(b []byte, in Instance) []byte {
	b = appendString(appendString(b, in.Service), in.ID)
	b = appendList(b, in.Addresses, appendAddr)
	b = binary.AppendUvarint(b, uint64(in.Port))
	b = appendList(b, in.Ports, appendPort)
	b = binary.AppendUvarint(b, uint64(in.Weight))
	b = binary.AppendUvarint(b, uint64(in.Priority))
	b = appendList(b, in.Tags, appendString)
	b = appendMeta(b, in.Meta)
	b = appendString(appendString(b, in.Region), in.Zone)
	b = binary.AppendVarint(b, int64(in.TTL))
	b = appendList(b, in.Checks, appendCheck)
	b = binary.AppendVarint(binary.AppendVarint(b, in.Incarnation), in.Revision)
	return appendBool(b, in.Leased)
}

func appendService(b []byte, s Service) []byte {
	b = appendString(appendString(b, s.Name), s.Policy)
	b = binary.AppendVarint(binary.AppendVarint(b, int64(s.TTL)), int64(s.MaxAnswers))
	b = appendString(b, s.HashOn)
	b = appendList(b, s.Checks, appendCheck)
	b = appendString(b, s.Fail)
	b = appendBool(b, s.PanicThreshold != nil)
	if s.PanicThreshold != nil {
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(*s.PanicThreshold))
	}
	b = appendBool(b, s.SlowStart != nil)
	if s.SlowStart != nil {
		b = binary.AppendVarint(b, int64(*s.SlowStart))
	}
	b = appendString(appendString(b, s.Spill), s.ProxyPolicy)
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(s.HashBound))
	b = appendBool(b, s.VIP != nil)
	b = appendList(b, s.VIP, appendAddr)
	b = appendBool(b, s.Failover != nil)
	b = appendList(b, s.Failover, appendString)
	return binary.AppendVarint(appendMeta(b, s.Meta), s.Revision)
}

func appendAdmin(b []byte, a Admin) []byte {
	b = append(appendString(appendString(b, a.Service), a.Instance), byte(a.State))
	b = appendTime(appendTime(appendString(appendString(b, a.Reason), a.By), a.Since), a.Until)
	return binary.AppendVarint(b, a.Revision)
}

// appendRoute writes a route as its record: routes are few, and their form
// grows.
func appendRoute(b []byte, r Route) []byte {
	value, err := EncodeRoute(r)
	if err != nil {
		value = nil // none that was decoded or validated; read back, it is a malformed section
	}
	return binary.AppendVarint(appendString(appendString(b, r.Name), string(value)), r.Revision)
}

// appendNote writes a note whose reader has made its value octets; another is written
// without one.
func appendNote(b []byte, n Note) []byte {
	value, _ := n.Value.([]byte)
	return appendString(appendString(b, n.Key.Service), string(value))
}

func appendHealth(b []byte, h HealthMark) []byte {
	b = appendString(appendString(b, h.Service), h.Instance)
	return binary.AppendUvarint(b, uint64(h.State))
}

// unpacker reads what the append functions wrote. Once something is not as they
// write it, bad is set and all that is read is zero.
type unpacker struct {
	in    []byte
	bad   bool
	words map[string]string // those that word has read
}

// wordsMax bounds the words that are kept once.
const wordsMax = 4096

func (d *unpacker) fail() { d.bad, d.in = true, nil }

func (d *unpacker) uint(greatest uint64) uint64 {
	n, size := binary.Uvarint(d.in)
	if size <= 0 || n > greatest {
		d.fail()
		return 0
	}
	d.in = d.in[size:]
	return n
}

func (d *unpacker) int() int64 {
	n, size := binary.Varint(d.in)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.in = d.in[size:]
	return n
}

func (d *unpacker) bytes(size uint64) []byte {
	if size > uint64(len(d.in)) {
		d.fail()
		return nil
	}
	out := d.in[:size]
	d.in = d.in[size:]
	return out
}

func (d *unpacker) string() string { return string(d.bytes(d.uint(SnapshotMax))) }

// word reads a string that many records have, as one copy for all.
func (d *unpacker) word() string {
	raw := d.bytes(d.uint(SnapshotMax))
	if w, ok := d.words[string(raw)]; ok {
		return w
	}
	w := string(raw)
	if len(d.words) < wordsMax {
		d.words[w] = w
	}
	return w
}

func (d *unpacker) bool() bool { return d.uint(1) == 1 }

func (d *unpacker) time() time.Time {
	if !d.bool() {
		return time.Time{}
	}
	seconds := d.int()
	return time.Unix(seconds, int64(d.uint(uint64(time.Second)-1))).UTC()
}

// unpackList reads what appendList wrote. An element takes at least one byte,
// so the number of elements cannot exceed that of what is left.
func unpackList[T any](d *unpacker, element func() T) []T {
	n := d.uint(uint64(len(d.in)))
	if n == 0 {
		return nil
	}
	list := make([]T, 0, n-1)
	for range n - 1 {
		if d.bad {
			return nil
		}
		list = append(list, element())
	}
	return list
}

func (d *unpacker) meta() map[string]string {
	n := d.uint(uint64(len(d.in)))
	if n == 0 {
		return nil
	}
	meta := make(map[string]string, n)
	for range n {
		key := d.string()
		meta[key] = d.string()
	}
	return meta
}

func (d *unpacker) addr() netip.Addr {
	addr, ok := netip.AddrFromSlice(d.bytes(d.uint(16)))
	if !ok {
		d.fail()
	}
	return addr
}

func (d *unpacker) port() Port {
	return Port{Name: d.word(), Number: uint16(d.uint(math.MaxUint16)), Proto: d.word()}
}

func (d *unpacker) check() Check {
	var k Check
	for _, s := range [...]*string{&k.Type, &k.Port, &k.Path, &k.Host, &k.Method, &k.Status, &k.Service, &k.Name, &k.Record} {
		*s = d.word()
	}
	flags := d.uint(checkInsecure | checkKeep | checkCommand)
	k.Insecure, k.Keep = flags&checkInsecure != 0, flags&checkKeep != 0
	if flags&checkCommand != 0 {
		k.Command = unpackList(d, d.word)
	}
	k.Interval, k.Timeout = time.Duration(d.int()), time.Duration(d.int())
	k.Rise, k.Fall = int(d.int()), int(d.int())
	return k
}

func (d *unpacker) instance() Instance {
	return Instance{
		Service: d.string(), ID: d.string(),
		Addresses: unpackList(d, d.addr), Port: uint16(d.uint(math.MaxUint16)), Ports: unpackList(d, d.port),
		Weight: uint16(d.uint(math.MaxUint16)), Priority: uint16(d.uint(math.MaxUint16)),
		Tags: unpackList(d, d.word), Meta: d.meta(), Region: d.word(), Zone: d.word(),
		TTL: time.Duration(d.int()), Checks: unpackList(d, d.check),
		Incarnation: d.int(), Revision: d.int(), Leased: d.bool(),
	}
}

func (d *unpacker) service() Service {
	s := Service{
		Name: d.string(), Policy: d.string(), TTL: time.Duration(d.int()), MaxAnswers: int(d.int()),
		HashOn: d.string(), Checks: unpackList(d, d.check), Fail: d.string(),
	}
	if d.bool() {
		if raw := d.bytes(8); raw != nil {
			share := math.Float64frombits(binary.BigEndian.Uint64(raw))
			s.PanicThreshold = &share
		}
	}
	if d.bool() {
		wait := time.Duration(d.int())
		s.SlowStart = &wait
	}
	s.Spill, s.ProxyPolicy = d.string(), d.string()
	if raw := d.bytes(8); raw != nil {
		s.HashBound = math.Float64frombits(binary.BigEndian.Uint64(raw))
	}
	isSet := d.bool()
	if s.VIP = unpackList(d, d.addr); isSet && s.VIP == nil {
		s.VIP = []netip.Addr{}
	}
	isSet = d.bool()
	if s.Failover = unpackList(d, d.string); isSet && s.Failover == nil {
		s.Failover = []string{}
	}
	s.Meta, s.Revision = d.meta(), d.int()
	return s
}

func (d *unpacker) admin() Admin {
	return Admin{
		Service: d.string(), Instance: d.string(), State: AdminState(d.uint(uint64(AdminFreeze))),
		Reason: d.string(), By: d.string(), Since: d.time(), Until: d.time(), Revision: d.int(),
	}
}

func (d *unpacker) note() Note {
	return Note{Key: Key{Kind: KindService, Service: d.string()}, Value: []byte(d.string())}
}

func (d *unpacker) health() HealthMark {
	return HealthMark{Service: d.string(), Instance: d.string(), State: uint8(d.uint(math.MaxUint8))}
}

func (d *unpacker) route() Route {
	name := d.string()
	r, err := DecodeRoute(name, []byte(d.string()))
	if err != nil {
		d.fail()
	}
	r.Revision = d.int()
	return r
}
