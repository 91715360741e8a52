package kernel_test

import (
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/dsr"
	"github.com/musterdns/muster/lb/kernel/kerneltest"
	"github.com/musterdns/muster/lb/kernel/nat"
)

// way is how a client's packets reach the backend: directly, through a plane, or
// through a process that copies, which is the least that any proxy does.
var ways = []struct {
	name string
	to   string
	open func(b *testing.B, balancer *kerneltest.Machine)
}{
	{"direct", "10.1.0.10:80", func(*testing.B, *kerneltest.Machine) {}},
	{"nat", "10.1.0.100:80", openNAT},
	{"dsr-tcx", "10.1.0.100:80", func(b *testing.B, m *kerneltest.Machine) { openDSR(b, m, dsr.TCX) }},
	{"dsr-xdp-generic", "10.1.0.100:80", func(b *testing.B, m *kerneltest.Machine) { openDSR(b, m, dsr.XDPGeneric) }},
	{"process", "10.1.0.100:80", openProcess},
}

func web() []kernel.Service {
	return []kernel.Service{{
		Name: "web", VIP: netip.MustParseAddrPort("10.1.0.100:80"), Protocol: kernel.TCP,
		Instances: []kernel.Instance{{ID: "web-1", Addr: netip.MustParseAddrPort("10.1.0.10:80"), Weight: 1}},
	}}
}

func openNAT(b *testing.B, m *kerneltest.Machine) {
	p, err := nat.New(nat.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	m.Must(func() error { return p.Apply(b.Context(), web()) })
}

func openDSR(b *testing.B, m *kerneltest.Machine, mode dsr.Mode) {
	pins := b.TempDir()
	if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Unmount(pins, unix.MNT_DETACH) })
	m.Must(func() error {
		p, err := dsr.New(dsr.Config{Interface: "eth0", Mode: mode, PinDir: pins})
		if err != nil {
			return err
		}
		b.Cleanup(func() { _ = p.Close() })
		return p.Apply(b.Context(), web())
	})
}

func openProcess(b *testing.B, m *kerneltest.Machine) {
	l := m.Listen("10.1.0.100:80")
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := m.Dial(net.Dialer{}, "tcp", "", "10.1.0.10:80")
				if err != nil {
					return
				}
				defer out.Close()
				go func() {
					_, _ = io.Copy(out, in) // until either side ends
					_ = out.(*net.TCPConn).CloseWrite()
				}()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
}

// lab is one link with a client, a balancer with the VIP and a backend that has it
// too and answers each octet with as many as it is worth in blocks.
func lab(b *testing.B, routed bool, open func(*testing.B, *kerneltest.Machine)) (client *kerneltest.Machine) {
	kerneltest.Require(b)
	client = kerneltest.New(b, "client")
	balancer, backend := kerneltest.New(b, "balancer"), kerneltest.New(b, "backend")
	link := kerneltest.NewSwitch(b, "link")
	link.Attach(client, "eth0", "10.1.0.2/24")
	link.Attach(balancer, "eth0", "10.1.0.1/24", "10.1.0.100/32")
	link.Attach(backend, "eth0", "10.1.0.10/24")
	balancer.Sysctl("net/ipv4/ip_forward", "1")
	// With nat, replies must come back to the balancer.
	balancer.Sysctl("net/ipv4/conf/all/send_redirects", "0")
	balancer.Sysctl("net/ipv4/conf/eth0/send_redirects", "0")
	if routed {
		backend.Route("10.1.0.2/32", "10.1.0.1")
	}
	backend.Sysctl("net/ipv4/conf/all/arp_ignore", "1")
	backend.Sysctl("net/ipv4/conf/all/arp_announce", "2")
	backend.Address("lo", "10.1.0.100/32")
	// A backend's port stays in TIME_WAIT; the client's connections end with a reset.
	l := backend.Listen("0.0.0.0:80")
	go func() {
		block := make([]byte, blockSize)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var request [1]byte
				if _, err := io.ReadFull(c, request[:]); err != nil {
					return
				}
				if request[0] == 0 {
					_, _ = c.Write(request[:])
					_, _ = c.Read(request[:]) // until the client ends
					return
				}
				for range request[0] {
					if _, err := c.Write(block); err != nil {
						return
					}
				}
			}()
		}
	}()
	open(b, balancer)
	return client
}

const blockSize = 1 << 20

// cpu is what this process, with the kernel's work on its behalf, has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkConnections opens a connection, sends an octet, reads one and resets
// it. The CPU is of client, balancer and backend: what a way costs is its
// difference to the direct one.
func BenchmarkConnections(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			client := lab(b, way.name == "nat", way.open)
			to := way.to
			began := time.Duration(0)
			n := 0
			client.Must(func() error {
				for b.Loop() {
					if n == 0 {
						began = cpu()
					}
					n++
					c, err := new(net.Dialer).DialContext(b.Context(), "tcp", to)
					if err != nil {
						return err
					}
					var octet [1]byte
					if _, err := c.Write(octet[:]); err != nil {
						return err
					}
					if _, err := io.ReadFull(c, octet[:]); err != nil {
						return err
					}
					_ = c.(*net.TCPConn).SetLinger(0)
					c.Close()
				}
				return nil
			})
			b.ReportMetric(float64((cpu()-began).Microseconds())/float64(n), "cpu-us/op")
		})
	}
}

// BenchmarkDownload is of 64 MB over one connection, of which with direct server
// return only acknowledgements pass the balancer.
func BenchmarkDownload(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			client := lab(b, way.name == "nat", way.open)
			b.SetBytes(64 * blockSize)
			began, n := cpu(), 0
			client.Must(func() error {
				for b.Loop() {
					n++
					c, err := new(net.Dialer).DialContext(b.Context(), "tcp", way.to)
					if err != nil {
						return err
					}
					if _, err := c.Write([]byte{64}); err != nil {
						return err
					}
					if _, err := io.Copy(io.Discard, c); err != nil {
						return err
					}
					c.Close()
				}
				return nil
			})
			b.ReportMetric(float64((cpu()-began).Microseconds())/float64(n)/64, "cpu-us/MB")
		})
	}
}
