package nat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel"
)

// From include/uapi/linux/netfilter/nfnetlink_conntrack.h, which x/sys has not.
const (
	ctNew           = unix.NFNL_SUBSYS_CTNETLINK << 8
	ctGet           = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete        = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	ctaTupleOrig    = 1
	ctaTupleReply   = 2
	ctaProtoinfo    = 4
	ctaTimeout      = 7
	ctaFilter       = 25
	ctaTupleIP      = 1
	ctaTupleProto   = 2
	ctaIPv4Source   = 1
	ctaIPv4Dest     = 2
	ctaIPv6Source   = 3
	ctaIPv6Dest     = 4
	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3
	ctaProtoTCP     = 1
	ctaTCPState     = 1
	ctaFilterOrig   = 1
	ctaFilterReply  = 2
	tcpEstablished  = 3 // enum tcp_conntrack
	tcpTimeWait     = 7
	// From net/netfilter/nf_internals.h: which parts of a tuple filter a dump.
	filterIPSource  = 1 << 0
	filterIPDest    = 1 << 1
	filterProto     = 1 << 3
	filterSrcPort   = 1 << 4
	filterDstPort   = 1 << 5
	nestedAttribute = netlink.Nested
)

// entryTimeout is what is left to an entry whose connection is being reset.
const entryTimeout = 5 * time.Second

// flow is an entry of conntrack that leads to an instance.
type flow struct {
	client, vip, instance netip.AddrPort
	tuple                 []byte // as the kernel wrote it: the client's side
	// established TCP connections can be reset; others are forgotten.
	established bool
}

// conntrack speaks to the connection tracking of this network namespace.
type conntrack struct{ *netlink.Conn }

func dialConntrack() (*conntrack, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening conntrack: %w", err)
	}
	if err := errors.Join(c.SetReadBuffer(writeBuffer), c.SetWriteBuffer(1<<20)); err != nil {
		_ = c.Close() // the first error counts
		return nil, fmt.Errorf("opening conntrack: %w", err)
	}
	return &conntrack{c}, nil
}

// request makes a message; all of them begin with a struct nfgenmsg.
func (f *family) request(kind, flags uint16, attributes []netlink.Attribute) (netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		return netlink.Message{}, fmt.Errorf("encoding a request to conntrack: %w", err)
	}
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.HeaderFlags(flags)},
		Data:   append([]byte{byte(f.nfproto), unix.NFNETLINK_V0, 0, 0}, data...),
	}, nil
}

// flows lists the entries of a VIP that lead to an instance. The kernel filters
// them (since Linux 5.8), so that this costs memory for few others. It does not
// for IPv6 addresses: there it passes what is not equal (seen with Linux 6.18).
func (c *conntrack) flows(f *family, vip, instance netip.AddrPort, p kernel.Protocol) ([]flow, error) {
	orig, reply := uint32(filterProto|filterDstPort), uint32(filterProto|filterSrcPort)
	if f.size == 4 {
		orig |= filterIPDest
		reply |= filterIPSource
	}
	m, err := f.request(ctGet, uint16(netlink.Dump), []netlink.Attribute{
		tuple(ctaTupleOrig, f.ipDest(), vip, ctaProtoDstPort, p),
		tuple(ctaTupleReply, f.ipSource(), instance, ctaProtoSrcPort, p),
		nested(
			ctaFilter,
			netlink.Attribute{Type: ctaFilterOrig, Data: binary.NativeEndian.AppendUint32(nil, orig)},
			netlink.Attribute{Type: ctaFilterReply, Data: binary.NativeEndian.AppendUint32(nil, reply)},
		),
	})
	if err != nil {
		return nil, err
	}
	messages, err := c.Execute(m)
	if err != nil {
		return nil, fmt.Errorf("listing connections to %v: %w", instance, err)
	}
	flows := make([]flow, 0, len(messages))
	for _, m := range messages {
		fl := parseFlow(m.Data, f, p)
		if fl.client.IsValid() && fl.vip == vip && fl.instance == instance {
			flows = append(flows, fl)
		}
	}
	return flows, nil
}

// tuple is one direction of a connection, as far as it filters.
func tuple(kind, address uint16, a netip.AddrPort, port uint16, p kernel.Protocol) netlink.Attribute {
	return nested(
		kind,
		nested(ctaTupleIP, netlink.Attribute{Type: address, Data: a.Addr().AsSlice()}),
		nested(
			ctaTupleProto,
			netlink.Attribute{Type: ctaProtoNum, Data: []byte{byte(p)}},
			netlink.Attribute{Type: port, Data: binary.BigEndian.AppendUint16(nil, a.Port())},
		),
	)
}

// nested encodes attributes into one. The parts are all shorter than the 65,535
// octets that alone make encoding fail.
func nested(kind uint16, parts ...netlink.Attribute) netlink.Attribute {
	data, err := netlink.MarshalAttributes(parts)
	if err != nil {
		panic("nat: a fixed netlink attribute cannot be encoded: " + err.Error())
	}
	return netlink.Attribute{Type: kind | nestedAttribute, Data: data}
}

func (f *family) ipSource() uint16 {
	if f.size == 4 {
		return ctaIPv4Source
	}
	return ctaIPv6Source
}

func (f *family) ipDest() uint16 { return f.ipSource() + 1 }

// parseFlow reads an entry; what it does not find stays zero.
func parseFlow(data []byte, f *family, p kernel.Protocol) flow {
	var fl flow
	if len(data) < 4 {
		return fl
	}
	fl.tuple = slices.Clone(find(data[4:], ctaTupleOrig))
	fl.client = part(fl.tuple, f.ipSource(), ctaProtoSrcPort)
	fl.vip = part(fl.tuple, f.ipDest(), ctaProtoDstPort)
	fl.instance = part(find(data[4:], ctaTupleReply), f.ipSource(), ctaProtoSrcPort)
	state := find(find(find(data[4:], ctaProtoinfo), ctaProtoTCP), ctaTCPState)
	fl.established = p == kernel.TCP && len(state) == 1 && state[0] >= tcpEstablished && state[0] < tcpTimeWait
	return fl
}

// part reads one end of a tuple.
func part(tuple []byte, address, port uint16) netip.AddrPort {
	a, ok := netip.AddrFromSlice(find(find(tuple, ctaTupleIP), address))
	number := find(find(tuple, ctaTupleProto), port)
	if !ok || len(number) != 2 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(number))
}

// find returns the content of the first attribute of a kind; nil if there is none.
func find(data []byte, kind uint16) []byte {
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return nil
	}
	for d.Next() {
		if d.Type() == kind {
			return d.Bytes()
		}
	}
	return nil
}

// end takes flows out of the table at once; those that the table is to reset when
// they are heard of, after entryTimeout.
func (c *conntrack) end(f *family, flows []flow, reset bool) error {
	for part := range slices.Chunk(flows, chunk) {
		messages := make([]netlink.Message, len(part))
		for i, fl := range part {
			kind := uint16(ctDelete)
			attributes := []netlink.Attribute{{Type: ctaTupleOrig | nestedAttribute, Data: fl.tuple}}
			if fl.established && reset {
				kind = ctNew
				seconds := uint32(entryTimeout / time.Second)
				attributes = append(attributes, netlink.Attribute{Type: ctaTimeout, Data: binary.BigEndian.AppendUint32(nil, seconds)})
			}
			var err error
			if messages[i], err = f.request(kind, uint16(netlink.Acknowledge), attributes); err != nil {
				return err
			}
		}
		if _, err := c.SendMessages(messages); err != nil {
			return fmt.Errorf("ending %d connections: %w", len(part), err)
		}
		var failed error
		for range messages {
			// One that has ended meanwhile is as wanted.
			if _, err := c.Receive(); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = err
			}
		}
		if failed != nil {
			return fmt.Errorf("ending connections: %w", failed)
		}
	}
	return nil
}
