package dsr_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/dsr"
	"github.com/musterdns/muster/lb/kernel/kerneltest"
)

// RFC 792 and RFC 4443: an error about what an instance has sent goes to that
// instance, or it never learns that its packets are too big.
func TestPlane_ErrorsGoToTheFlowsInstance(t *testing.T) {
	for _, row := range []struct {
		network, from string
		vip           netip.AddrPort
		icmp          []byte // type, code, checksum, MTU
	}{
		{"ip4:icmp", "10.1.0.2", vip4, []byte{3, 4, 0, 0, 0, 0, 0x05, 0x14}},
		{"ip6:ipv6-icmp", "fd00:1::2", vip6, []byte{2, 0, 0, 0, 0, 0, 0x05, 0x14}},
	} {
		t.Run(row.network, func(t *testing.T) {
			l := newLab(t, dsr.Auto, 3)
			l.apply(t, l.services()...)
			hears := map[string]net.PacketConn{}
			for _, b := range l.backends {
				all := "0.0.0.0"
				if row.vip == vip6 {
					all = "::"
				}
				hears[b.Name] = b.ListenPacket(row.network, all)
			}
			send := l.client.ListenPacket(row.network, row.from)
			for _, c := range l.spread(t, row.vip)[:6] {
				message := append(row.icmp[:8:8], sent(row.vip, c.LocalAddr().(*net.TCPAddr).AddrPort())...)
				if row.vip == vip4 { // the kernel does this for ICMPv6
					binary.BigEndian.PutUint16(message[2:], sum(message))
				}
				if _, err := send.WriteTo(message, &net.IPAddr{IP: row.vip.Addr().AsSlice()}); err != nil {
					t.Fatal(err)
				}
				if err := hear(hears[c.Name], message); err != nil {
					t.Errorf("%s does not hear of its packet: %v", c.Name, err)
				}
			}
		})
	}
}

// sent is the beginning of what an instance has sent to a client.
func sent(vip, client netip.AddrPort) []byte {
	var packet []byte
	if vip.Addr().Is4() {
		packet = make([]byte, 12, 28)
		packet[0], packet[8], packet[9] = 0x45, 64, 6
	} else {
		packet = make([]byte, 8, 48)
		packet[0], packet[6], packet[7] = 0x60, 6, 64
	}
	packet = append(append(packet, vip.Addr().AsSlice()...), client.Addr().Unmap().AsSlice()...)
	packet = binary.BigEndian.AppendUint16(packet, vip.Port())
	packet = binary.BigEndian.AppendUint16(packet, client.Port())
	return append(packet, 0, 0, 0, 1)
}

// sum is the checksum of RFC 1071, of an even number of octets.
func sum(message []byte) uint16 {
	var s uint32
	for ; len(message) > 0; message = message[2:] {
		s += uint32(binary.BigEndian.Uint16(message))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// hear waits for a message, whose checksum may differ.
func hear(c net.PacketConn, message []byte) error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if n >= len(message) && string(buf[:2]) == string(message[:2]) && string(buf[4:len(message)]) == string(message[4:]) {
			return nil
		}
	}
}

// A datagram that fits goes to an instance; fragments are the stack's, which has
// no such port; so is an echo request, which the balancer answers.
func TestPlane_LeavesToTheStack(t *testing.T) {
	l := newLab(t, dsr.Auto, 2)
	s := kernel.Service{Name: "dns", VIP: netip.AddrPortFrom(vip4.Addr(), 53), Protocol: kernel.UDP}
	for _, b := range l.backends {
		s.Instances = append(s.Instances, kernel.Instance{ID: b.Name, Addr: netip.AddrPortFrom(b.addr4.Addr(), 53), Weight: 1})
		c := b.ListenPacket("udp", s.VIP.String())
		kerneltest.Reply(t, c, func(question []byte) []byte { return append(question[:1:1], b.Name...) })
	}
	l.apply(t, s)
	c, err := l.client.Dial(net.Dialer{}, "udp", "", s.VIP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want, err := l.plane.Explain("dns", c.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := kerneltest.Ask(c, 1, 100); err != nil || got != want.Instance {
		t.Errorf("a datagram is answered by %q, %v; Explain says %+v", got, err, want)
	}
	// From a socket of its own: one that was sent again is refused again, later.
	fragments, err := l.client.Dial(net.Dialer{}, "udp", "", s.VIP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer fragments.Close()
	if got, err := kerneltest.Ask(fragments, 2, 3000); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a datagram in fragments is answered by %q, %v; want refused by the balancer", got, err)
	}
	// A killed instance's flow goes to the other at once.
	for _, in := range s.Instances {
		if in.ID == want.Instance {
			l.kill(t.Context(), t, "dns", in.Addr)
		}
	}
	if got, err := kerneltest.Ask(c, 3, 100); err != nil || got == want.Instance {
		t.Errorf("after %s was killed %q answers, %v", want.Instance, got, err)
	}

	before := l.balancer.Sent("eth0")
	ping := l.client.ListenPacket("ip4:icmp", "10.1.0.2")
	request := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}
	binary.BigEndian.PutUint16(request[2:], sum(request))
	if _, err := ping.WriteTo(request, &net.IPAddr{IP: vip4.Addr().AsSlice()}); err != nil {
		t.Fatal(err)
	}
	if err := hear(ping, []byte{0, 0, 0, 0, 0x12, 0x34, 0, 1}); err != nil {
		t.Errorf("an echo request is not answered: %v", err)
	}
	if l.balancer.Sent("eth0") == before {
		t.Error("the balancer has not answered an echo request")
	}
}
