package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/kernel"
)

// Names of what every table has.
const (
	setFronts      = "fronts"      // VIP, protocol, port -> the chain that chooses
	setVIPs        = "vips"        // VIP, protocol, port
	setInstances   = "instances"   // address, protocol, port
	setMasquerade  = "masquerade"  // address, protocol, port
	setConnections = "connections" // address, protocol, port, with a counter
	setSent        = "sent"        // address, protocol, port, with a counter
	setReplied     = "replied"     // address, protocol, port, with a counter
	setFenced      = "fenced"      // VIPs that need to be held
	setHeld        = "held"        // VIPs that are, until when
	setDead        = "dead"        // address, protocol, port: killed instances

	// layoutVersion names a chain without rules; a table without it was made by
	// another version of Muster and is replaced.
	layoutVersion = "layout-2"

	slotsPrefix  = "slots-"
	choosePrefix = "choose-"
)

// setSizeMax limits the small sets: instances of all services of a family.
const setSizeMax = 65_536

// deadTimeout is how long a killed instance's connections are answered with
// resets. Its conntrack entries are gone after entryTimeout or, where they were
// reset, after nf_conntrack_tcp_timeout_close (10 s).
const deadTimeout = time.Minute

// family is what differs between IPv4 and IPv6.
type family struct {
	table   nftables.TableFamily
	nfproto uint32
	address nftables.SetDatatype
	size    int    // of an address, in octets
	source  uint32 // offset of the source address in the header
	dest    uint32 // offset of the destination address in the header
	// unreachable is the ICMP code of an unreachable port.
	unreachable uint8
}

// families returns IPv4 and IPv6, in this order.
func families() [2]family {
	return [2]family{
		{nftables.TableFamilyIPv4, unix.NFPROTO_IPV4, nftables.TypeIPAddr, 4, 12, 16, 3},  // RFC 792
		{nftables.TableFamilyIPv6, unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 16, 8, 24, 4}, // RFC 4443 section 3.1
	}
}

// of reports whether the address is of this family.
func (f *family) of(a netip.Addr) bool { return a.Is4() == (f.size == 4) }

// words is how many 32-bit registers an address takes.
func (f *family) words() uint32 { return uint32(f.size) / 4 }

// target is an instance as the value of a slot: address, port.
func target(a netip.AddrPort) string {
	b := binary.BigEndian.AppendUint16(a.Addr().AsSlice(), a.Port())
	return string(append(b, 0, 0)) // each part fills whole registers
}

// untarget is the inverse of target.
func untarget(b []byte) netip.AddrPort {
	a, ok := netip.AddrFromSlice(b[:len(b)-4])
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[len(b)-4:]))
}

// targetSize is the length of target.
func (f *family) targetSize() int { return f.size + 4 }

// endpoint is a key of the sets of address, protocol, port.
func endpoint(a netip.AddrPort, p kernel.Protocol) string {
	b := append(a.Addr().AsSlice(), byte(p), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	return string(append(b, 0, 0))
}

// endpointSize is the length of endpoint.
func (f *family) endpointSize() int { return f.size + 8 }

// appendSlotKey appends the key of a slot: the word that the hash leaves in a
// register.
func appendSlotKey(b []byte, slot uint32) []byte { return binary.NativeEndian.AppendUint32(b, slot) }

// slotsName is the name of a service's map of slots.
func slotsName(service string) string { return slotsPrefix + service }

// chooseName is the name of the chain that chooses for a service. It contains
// all that its rules depend on, so that a chain of that name has those rules.
func chooseName(s *kernel.Service) string {
	return fmt.Sprintf("%s%s-%v-%d", choosePrefix, s.Name, s.Protocol, s.Affinity)
}

// concat makes the type of a key or a value of several parts.
func concat(parts ...nftables.SetDatatype) (nftables.SetDatatype, error) {
	t, err := nftables.ConcatSetType(parts...)
	if err != nil {
		return t, fmt.Errorf("making a type of set: %w", err)
	}
	return t, nil
}

// newSlots describes a service's map of slots.
func (f *family) newSlots(table *nftables.Table, service string) (*nftables.Set, error) {
	value, err := concat(f.address, nftables.TypeInetService)
	return &nftables.Set{
		Table: table, Name: slotsName(service), IsMap: true, Size: lb.MaglevSlots,
		KeyType: nftables.TypeMark, KeyByteOrder: binaryutil.NativeEndian, DataType: value,
	}, err
}

// smallSets describes the sets that every table has, by name.
func (f *family) smallSets(table *nftables.Table) (map[string]*nftables.Set, error) {
	ends, err := concat(f.address, nftables.TypeInetProto, nftables.TypeInetService)
	if err != nil {
		return nil, err
	}
	sets := map[string]*nftables.Set{
		setFronts: {IsMap: true, DataType: nftables.TypeVerdict, KeyType: ends, Concatenation: true},
		setFenced: {KeyType: f.address},
		setHeld:   {KeyType: f.address, HasTimeout: true},
		setDead:   {KeyType: ends, Concatenation: true, HasTimeout: true, Timeout: deadTimeout},
	}
	for _, name := range []string{setVIPs, setInstances, setMasquerade} {
		sets[name] = &nftables.Set{KeyType: ends, Concatenation: true}
	}
	for _, name := range []string{setConnections, setSent, setReplied} {
		sets[name] = &nftables.Set{KeyType: ends, Concatenation: true, Counter: true}
	}
	for name, s := range sets {
		s.Table, s.Name, s.Size, s.KeyByteOrder = table, name, setSizeMax, binaryutil.BigEndian
	}
	return sets, nil
}
