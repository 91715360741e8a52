package nat

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/kernel"
)

// reg is the nth 32-bit register.
func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

// Offsets in the headers of TCP (RFC 9293 section 3.1) and UDP.
const (
	sourcePortOffset = 0
	destPortOffset   = 2
	tcpFlagsOffset   = 13
)

// Flags of TCP.
const (
	tcpSYN = 0x02
	tcpRST = 0x04
)

func network(offset uint32, size int, r uint32) expr.Any {
	return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)}
}

func transport(offset, size, r uint32) expr.Any {
	return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: size}
}

// end loads address, protocol and port of the packet's source or destination,
// the key of endpoint, from the first register on.
func (f *family) end(address, port uint32) []expr.Any {
	return []expr.Any{
		network(address, f.size, reg(0)),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(f.words())},
		transport(port, 2, reg(f.words()+1)),
	}
}

// ofSource and ofDest are the two ends of a packet.
func (f *family) ofSource() []expr.Any { return f.end(f.source, sourcePortOffset) }
func (f *family) ofDest() []expr.Any   { return f.end(f.dest, destPortOffset) }

// in goes on where the set has the key that begins in the first register.
func in(set string) expr.Any { return &expr.Lookup{SourceRegister: reg(0), SetName: set} }

// notIn goes on where it has not.
func notIn(set string) expr.Any {
	return &expr.Lookup{SourceRegister: reg(0), SetName: set, Invert: true}
}

func protocol(p byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: []byte{p}},
	}
}

// flagsClear goes on where a TCP segment has none of the flags.
func flagsClear(flags byte) []expr.Any {
	return []expr.Any{
		transport(tcpFlagsOffset, 1, reg(0)),
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 1, Mask: []byte{flags}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: []byte{0}},
	}
}

// ctHas goes on where the word that key loads has one of the bits.
func ctHas(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg(0)},
		&expr.Bitwise{
			SourceRegister: reg(0), DestRegister: reg(0), Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: make([]byte, 4)},
	}
}

// translated goes on for packets of connections whose destination was changed
// (IPS_DST_NAT).
func translated() []expr.Any { return ctHas(expr.CtKeySTATUS, 1<<5) }

func verdict(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }

func resetTCP() expr.Any { return &expr.Reject{Type: unix.NFT_REJECT_TCP_RST} }

// rule joins parts.
func rule(parts ...any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		switch p := p.(type) {
		case []expr.Any:
			out = append(out, p...)
		case expr.Any:
			out = append(out, p)
		}
	}
	return out
}

// toChoose sends a packet to the chain of its service.
func (f *family) toChoose() []expr.Any {
	return rule(f.ofDest(), &expr.Lookup{SourceRegister: reg(0), SetName: setFronts, IsDestRegSet: true})
}

// unheld drops what comes for a VIP that another machine may hold by now.
func (f *family) unheld() []expr.Any {
	return rule(network(f.dest, f.size, reg(0)), in(setFenced), notIn(setHeld), verdict(expr.VerdictDrop))
}

// killed resets TCP connections of killed instances, whose end of the packet is
// given, after translation: what a client sends is answered at once, and a hanging
// instance that comes to life again lets go of its side. New connections pass, and
// so does what was not translated: a checker must see the instance come back.
func killed(end []expr.Any) []expr.Any {
	return rule(translated(), end, in(setDead), protocol(unix.IPPROTO_TCP), flagsClear(tcpSYN|tcpRST), resetTCP())
}

// base is a chain that the kernel calls.
type base struct {
	name     string
	hook     *nftables.ChainHook
	kind     nftables.ChainType
	priority *nftables.ChainPriority
	rules    [][]expr.Any
}

// bases lists the chains of every table. Between conntrack and translation
// (mangle) packets have their connection and still the addresses that they came
// with.
func (f *family) bases() []base {
	isNew := ctHas(expr.CtKeySTATE, expr.CtStateBitNEW)
	isInvalid := ctHas(expr.CtKeySTATE, expr.CtStateBitINVALID)
	drop := verdict(expr.VerdictDrop)
	return []base{
		{"probes", nftables.ChainHookOutput, nftables.ChainTypeFilter, nftables.ChainPriorityRaw, [][]expr.Any{
			rule(
				&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(0)},
				&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: binary.NativeEndian.AppendUint32(nil, kernel.WakeMark)},
				&expr.Notrack{},
			),
		}},
		{"guard", nftables.ChainHookPrerouting, nftables.ChainTypeFilter, nftables.ChainPriorityMangle, [][]expr.Any{
			f.unheld(),
			// Without its connection, a packet is not translated. What an
			// instance sends would reach the client with the instance's own
			// address and be reset; dropped, it is sent again when the
			// client's side has made the connection known here.
			rule(isNew, protocol(unix.IPPROTO_TCP), flagsClear(tcpSYN), f.ofSource(), in(setInstances), drop),
			rule(isInvalid, f.ofSource(), in(setInstances), drop),
			// And what a client sends would be answered, with a reset, by the
			// machine itself if it has the VIP.
			rule(isInvalid, f.ofDest(), in(setVIPs), drop),
			rule(translated(), f.ofSource(), in(setReplied)),
		}},
		{"guard-local", nftables.ChainHookOutput, nftables.ChainTypeFilter, nftables.ChainPriorityMangle, [][]expr.Any{f.unheld()}},
		{"reset", nftables.ChainHookForward, nftables.ChainTypeFilter, nftables.ChainPriorityFilter, [][]expr.Any{
			killed(f.ofDest()), killed(f.ofSource()),
		}},
		{"reset-from-local", nftables.ChainHookOutput, nftables.ChainTypeFilter, nftables.ChainPriorityFilter, [][]expr.Any{killed(f.ofDest())}},
		{"reset-to-local", nftables.ChainHookInput, nftables.ChainTypeFilter, nftables.ChainPriorityFilter, [][]expr.Any{killed(f.ofSource())}},
		{"balance", nftables.ChainHookPrerouting, nftables.ChainTypeNAT, nftables.ChainPriorityNATDest, [][]expr.Any{f.toChoose()}},
		{"balance-local", nftables.ChainHookOutput, nftables.ChainTypeNAT, nftables.ChainPriorityNATDest, [][]expr.Any{f.toChoose()}},
		{"count", nftables.ChainHookPostrouting, nftables.ChainTypeFilter, nftables.ChainPriorityFilter, [][]expr.Any{
			rule(translated(), f.ofDest(), in(setSent)),
		}},
		// Chains of type nat see the first packet of a connection only.
		{"open", nftables.ChainHookPostrouting, nftables.ChainTypeNAT, nftables.ChainPriorityNATSource, [][]expr.Any{
			rule(translated(), f.ofDest(), in(setConnections)),
			rule(translated(), f.ofDest(), in(setMasquerade), &expr.Masq{}),
		}},
	}
}

// choose is the chain of a service: the slot that the client's hash falls into
// says where to; without instances the client is refused at once.
func (f *family) choose(s *kernel.Service) [][]expr.Any {
	w := f.words()
	length := uint32(f.size)
	key := []expr.Any{network(f.source, f.size, reg(0))}
	if s.Affinity == kernel.BySourcePort {
		key = append(key, transport(sourcePortOffset, 2, reg(w)))
		length += 4
	}
	dest := 2 * w // address and port in the registers from there on
	refuse := resetTCP()
	if s.Protocol == kernel.UDP {
		refuse = &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: f.unreachable}
	}
	return [][]expr.Any{
		rule(
			key,
			&expr.Hash{SourceRegister: reg(0), DestRegister: reg(0), Length: length, Modulus: lb.MaglevSlots, Seed: kernel.HashSeed, Type: expr.HashTypeJenkins},
			&expr.Lookup{SourceRegister: reg(0), DestRegister: reg(dest), IsDestRegSet: true, SetName: slotsName(s.Name)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: f.nfproto, RegAddrMin: reg(dest), RegProtoMin: reg(dest + w)},
		),
		rule(refuse),
	}
}
