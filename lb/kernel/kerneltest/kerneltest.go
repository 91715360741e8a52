// Package kerneltest makes machines and networks out of network namespaces, for
// tests of the kernel's data planes with real clients and real servers. It needs
// root; nothing that it makes is seen from outside or outlives the test.
package kerneltest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Machine is a network namespace with its loopback interface up. Sockets that
// are opened on it stay there, whoever uses them.
type Machine struct {
	tb     testing.TB
	Name   string
	ns     netns.NsHandle
	handle *netlink.Handle
}

// Require ends the test where it cannot run: for want of privilege it is skipped
// and says so, but in CI, which runs as root, it fails.
func Require(tb testing.TB) {
	tb.Helper()
	err := func() error {
		if os.Geteuid() != 0 {
			return errors.New("not root: CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF are missing")
		}
		ns, err := newNamespace()
		if err != nil {
			return fmt.Errorf("CAP_SYS_ADMIN or CONFIG_NET_NS is missing: making a network namespace: %w", err)
		}
		return ns.Close()
	}()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		tb.Fatalf("the kernel's data planes must run in CI: %v", err)
	default:
		tb.Skipf("not run: %v", err)
	}
}

// newNamespace makes a network namespace. The thread that was in it ends.
func newNamespace() (netns.NsHandle, error) {
	var ns netns.NsHandle
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		ns, err = netns.Get()
		return err
	})
	return ns, err
}

// onThread runs f on a thread of its own, which ends with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not used again
		done <- f()
	}()
	return <-done
}

// New makes a machine.
func New(tb testing.TB, name string) *Machine {
	tb.Helper()
	ns, err := newNamespace()
	if err != nil {
		tb.Fatalf("making machine %s: %v", name, err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		tb.Fatalf("making machine %s: %v", name, err)
	}
	m := &Machine{tb: tb, Name: name, ns: ns, handle: h}
	tb.Cleanup(func() {
		h.Close()
		_ = ns.Close() // the test is over
	})
	m.Up("lo")
	// Link-local addresses are usable at once, too: nobody else has them.
	m.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	m.Sysctl("net/ipv6/conf/default/dad_transmits", "0")
	m.Sysctl("net/ipv6/conf/all/keep_addr_on_down", "1") // as with IPv4
	return m
}

// Do runs f on this machine, on a thread of its own. Goroutines that f starts
// are not on it, sockets that it opens are.
func (m *Machine) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(m.ns); err != nil {
			return err
		}
		return f()
	})
}

// Must is Do for what must not fail.
func (m *Machine) Must(f func() error) {
	m.tb.Helper()
	if err := m.Do(f); err != nil {
		m.tb.Fatalf("on %s: %v", m.Name, err)
	}
}

// Link finds an interface.
func (m *Machine) Link(name string) netlink.Link {
	m.tb.Helper()
	link, err := m.handle.LinkByName(name)
	if err != nil {
		m.tb.Fatalf("interface %s of %s: %v", name, m.Name, err)
	}
	return link
}

// Up sets an interface up.
func (m *Machine) Up(name string) {
	m.tb.Helper()
	if err := m.handle.LinkSetUp(m.Link(name)); err != nil {
		m.tb.Fatalf("setting up %s of %s: %v", name, m.Name, err)
	}
}

// Down sets an interface down, as a pulled cable does.
func (m *Machine) Down(name string) {
	m.tb.Helper()
	if err := m.handle.LinkSetDown(m.Link(name)); err != nil {
		m.tb.Fatalf("setting down %s of %s: %v", name, m.Name, err)
	}
}

// Address gives an interface an address, "10.0.0.1/24", usable at once.
func (m *Machine) Address(link, prefix string) {
	m.tb.Helper()
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		m.tb.Fatal(err)
	}
	addr.Flags = unix.IFA_F_NODAD
	if err := m.handle.AddrAdd(m.Link(link), addr); err != nil {
		m.tb.Fatalf("giving %s to %s of %s: %v", prefix, link, m.Name, err)
	}
}

// HasAddress reports whether an interface has an address.
func (m *Machine) HasAddress(link string, address netip.Addr) bool {
	m.tb.Helper()
	list, err := m.handle.AddrList(m.Link(link), netlink.FAMILY_ALL)
	if err != nil {
		m.tb.Fatalf("listing addresses of %s: %v", m.Name, err)
	}
	return slices.ContainsFunc(list, func(a netlink.Addr) bool { return a.IP.Equal(address.AsSlice()) })
}

// MAC gives an interface another MAC address.
func (m *Machine) MAC(link, mac string) {
	m.tb.Helper()
	hw, err := net.ParseMAC(mac)
	if err != nil {
		m.tb.Fatal(err)
	}
	if err := m.handle.LinkSetHardwareAddr(m.Link(link), hw); err != nil {
		m.tb.Fatalf("giving %s to %s of %s: %v", mac, link, m.Name, err)
	}
}

// Sent counts the packets that an interface has sent.
func (m *Machine) Sent(link string) uint64 { return m.Link(link).Attrs().Statistics.TxPackets }

// Checksums has the machine compute the checksums of what it sends by an
// interface, instead of leaving them to the hardware that a veth pair has not.
func (m *Machine) Checksums(link string) {
	m.tb.Helper()
	m.Must(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		// From include/uapi/linux/if.h and ethtool.h.
		off := struct{ command, value uint32 }{unix.ETHTOOL_STXCSUM, 0}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&off)}
		copy(request.name[:], link)
		// The kernel takes the request's address, and reads it before it returns.
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return errno
		}
		return nil
	})
}

// Route sends what is for a prefix to a gateway.
func (m *Machine) Route(prefix, gateway string) {
	m.tb.Helper()
	dst := netip.MustParsePrefix(prefix)
	route := &netlink.Route{
		Dst: &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())},
		Gw:  netip.MustParseAddr(gateway).AsSlice(),
	}
	if err := m.handle.RouteReplace(route); err != nil {
		m.tb.Fatalf("routing %s of %s by %s: %v", prefix, m.Name, gateway, err)
	}
}

// Sysctl changes a setting: "net/ipv4/ip_forward".
func (m *Machine) Sysctl(name, value string) {
	m.tb.Helper()
	m.Must(func() error { return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0) })
}

// Listen listens on this machine until the test ends.
func (m *Machine) Listen(address string) net.Listener {
	m.tb.Helper()
	var l net.Listener
	m.Must(func() (err error) {
		l, err = new(net.ListenConfig).Listen(m.tb.Context(), "tcp", address)
		return err
	})
	m.tb.Cleanup(func() { _ = l.Close() }) // the test may have closed it
	return l
}

// ListenPacket is Listen for what has no connections: "udp", "ip4:icmp".
func (m *Machine) ListenPacket(network, address string) net.PacketConn {
	m.tb.Helper()
	var c net.PacketConn
	m.Must(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(m.tb.Context(), network, address)
		return err
	})
	m.tb.Cleanup(func() { _ = c.Close() }) // the test may have closed it
	return c
}

// Dial connects from this machine; local is "" or the address to connect from.
func (m *Machine) Dial(d net.Dialer, network, local, address string) (net.Conn, error) {
	var c net.Conn
	err := m.Do(func() (err error) {
		if local != "" {
			at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(local))
			d.LocalAddr = at
			if network == "udp" {
				d.LocalAddr = &net.UDPAddr{IP: at.IP, Port: at.Port}
			}
		}
		c, err = d.DialContext(m.tb.Context(), network, address)
		return err
	})
	return c, err
}

// Switch is a bridge that machines are attached to.
type Switch struct {
	machine *Machine
	ports   int
}

// NewSwitch makes a switch.
func NewSwitch(tb testing.TB, name string) *Switch {
	tb.Helper()
	s := &Switch{machine: New(tb, name)}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := s.machine.handle.LinkAdd(bridge); err != nil {
		tb.Fatalf("making switch %s: %v", name, err)
	}
	s.machine.Up("br0")
	return s
}

// Attach connects a new interface of the machine and gives it addresses.
func (s *Switch) Attach(m *Machine, link string, prefixes ...string) {
	m.tb.Helper()
	s.ports++
	port := fmt.Sprintf("port%d", s.ports)
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: link,
		PeerNamespace: netlink.NsFd(m.ns),
	}
	if err := s.machine.handle.LinkAdd(veth); err != nil {
		m.tb.Fatalf("attaching %s to %s: %v", m.Name, s.machine.Name, err)
	}
	at := s.machine.Link(port)
	if err := s.machine.handle.LinkSetMaster(at, s.machine.Link("br0")); err != nil {
		m.tb.Fatalf("attaching %s to %s: %v", m.Name, s.machine.Name, err)
	}
	s.machine.Up(port)
	m.Up(link)
	for _, p := range prefixes {
		m.Address(link, p)
	}
}

// ReceiveAsXDP puts a program that passes everything at a port, given by its
// number from 1 on in the order of Attach: without one the other end cannot send
// to it from XDP.
func (s *Switch) ReceiveAsXDP(port int) {
	tb := s.machine.tb
	tb.Helper()
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, 2, asm.DWord), asm.Return()}, // XDP_PASS
	})
	if err != nil {
		tb.Fatalf("loading a program that passes everything: %v", err)
	}
	defer pass.Close()
	at := s.machine.Link(fmt.Sprintf("port%d", port))
	s.machine.Must(func() error { return netlink.LinkSetXdpFd(at, pass.FD()) })
}
