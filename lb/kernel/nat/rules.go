package nat

import (
	"encoding/binary"
	"fmt"

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

// fromClient goes on for packets of the direction that has opened the connection
// (IP_CT_DIR_ORIGINAL).
func fromClient() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: []byte{0}},
	}
}

// notLoopback goes on for packets that this machine has not sent to itself: where
// they were sent they have been seen.
func notLoopback() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: reg(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_LOOPBACK)},
	}
}

func verdict(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }

// to goes on in another chain.
func to(kind expr.VerdictKind, chain string) expr.Any { return &expr.Verdict{Kind: kind, Chain: chain} }

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

// shape is what of a table's rules depends on what the table is for: each packet
// pays for each rule.
type shape struct {
	fenced bool // there is an address that has to be held
	dead   bool // somebody was killed lately
}

// shapes are all that there may be.
func shapes() []shape { return []shape{{}, {fenced: true}, {dead: true}, {fenced: true, dead: true}} }

// String is the name of a chain without rules that says which shape a table has.
func (s shape) String() string { return fmt.Sprintf("shape-%t-%t", s.fenced, s.dead) }

// chain is one that all tables of a shape have.
type chain struct {
	name     string
	hook     *nftables.ChainHook // where the kernel calls it; nil: other chains do
	kind     nftables.ChainType
	priority *nftables.ChainPriority
	rules    [][]expr.Any
}

// chainCount is the chain that others go on in.
const chainCount = "count"

// layout lists the chains of every table of a shape, but for the services', those
// first that others go on in. Between conntrack and translation (mangle) packets have
// the addresses that they came with; where they are filtered, the instance's end has
// the instance's address in both directions.
func (f *family) layout(s shape) []chain {
	// A packet of a translated connection goes to be counted at once: there is
	// nothing else that it has to pass.
	count := rule(translated(), to(expr.VerdictGoto, chainCount))
	forward := append([][]expr.Any{count}, f.strange()...)
	toLocal := append([][]expr.Any{rule(notLoopback(), count)}, f.strange()...)
	fromLocal := [][]expr.Any{count}
	if s.dead {
		forward = append([][]expr.Any{killed(f.ofDest()), killed(f.ofSource())}, forward...)
		fromLocal = append([][]expr.Any{killed(f.ofDest())}, fromLocal...)
		toLocal = append([][]expr.Any{killed(f.ofSource())}, toLocal...)
	}
	chains := []chain{
		// Once for each packet, by the instance's end.
		{name: chainCount, rules: [][]expr.Any{
			rule(fromClient(), f.ofDest(), in(setSent), verdict(expr.VerdictReturn)),
			rule(f.ofSource(), in(setReplied)),
		}},
		{"probes", nftables.ChainHookOutput, nftables.ChainTypeFilter, nftables.ChainPriorityRaw, [][]expr.Any{
			rule(
				&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(0)},
				&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: binary.NativeEndian.AppendUint32(nil, kernel.WakeMark)},
				&expr.Notrack{},
			),
		}},
		{"forward", nftables.ChainHookForward, nftables.ChainTypeFilter, nftables.ChainPriorityFilter, forward},
		{"from-local", nftables.ChainHookOutput, nftables.ChainTypeFilter, nftables.ChainPriorityFilter, fromLocal},
		{"to-local", nftables.ChainHookInput, nftables.ChainTypeFilter, nftables.ChainPriorityFilter, toLocal},
		// Chains of type nat see the first packet of a connection only.
		{"balance", nftables.ChainHookPrerouting, nftables.ChainTypeNAT, nftables.ChainPriorityNATDest, [][]expr.Any{
			f.unknown(), f.toChoose(),
		}},
		{"balance-local", nftables.ChainHookOutput, nftables.ChainTypeNAT, nftables.ChainPriorityNATDest, [][]expr.Any{f.toChoose()}},
		{"open", nftables.ChainHookPostrouting, nftables.ChainTypeNAT, nftables.ChainPriorityNATSource, [][]expr.Any{
			rule(translated(), f.ofDest(), in(setConnections)),
			rule(translated(), f.ofDest(), in(setMasquerade), &expr.Masq{}),
		}},
		{"open-to-local", nftables.ChainHookInput, nftables.ChainTypeNAT, nftables.ChainPriorityNATSource, [][]expr.Any{
			rule(notLoopback(), translated(), f.ofDest(), in(setConnections)),
		}},
	}
	if !s.fenced {
		return chains
	}
	return append(
		chains,
		chain{"guard", nftables.ChainHookPrerouting, nftables.ChainTypeFilter, nftables.ChainPriorityMangle, [][]expr.Any{f.unheld()}},
		chain{"guard-local", nftables.ChainHookOutput, nftables.ChainTypeFilter, nftables.ChainPriorityMangle, [][]expr.Any{f.unheld()}},
	)
}

// unknown drops what an instance sends of a connection that is not known here, and so
// would not be translated: it would reach the client with the instance's own address
// and be reset. It is sent again when the client's side has made it known.
func (f *family) unknown() []expr.Any {
	return rule(protocol(unix.IPPROTO_TCP), flagsClear(tcpSYN), f.ofSource(), in(setInstances), verdict(expr.VerdictDrop))
}

// strange drops what belongs to no connection and so is not translated: of an
// instance, as unknown does, and of a client, whom the machine itself would answer
// with a reset if it has the VIP.
func (f *family) strange() [][]expr.Any {
	isInvalid := ctHas(expr.CtKeySTATE, expr.CtStateBitINVALID)
	drop := verdict(expr.VerdictDrop)
	return [][]expr.Any{
		rule(isInvalid, f.ofSource(), in(setInstances), drop),
		rule(isInvalid, f.ofDest(), in(setVIPs), drop),
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
