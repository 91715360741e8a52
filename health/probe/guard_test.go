package probe_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
)

// kinds are the kinds of check that connect to something.
var kinds = []health.Type{health.TypeHTTP, health.TypeHTTPS, health.TypeTCP, health.TypeGRPC, health.TypeDNS}

// doors listens on a port of every address of this machine, TCP and UDP, and
// counts who comes.
func doors(t *testing.T) (port uint16, came *atomic.Int64) {
	t.Helper()
	came = new(atomic.Int64)
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	port = addrOf(l.Addr()).Port()
	u, err := net.ListenPacket("udp", fmt.Sprintf("[::]:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			_ = c.Close()
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			if _, _, err := u.ReadFrom(make([]byte, 512)); err != nil {
				return
			}
			came.Add(1)
		}
	}()
	t.Cleanup(func() {
		_, _ = l.Close(), u.Close()
		<-done
		<-done
	})
	return port, came
}

func TestSet_Guard_NeverDials(t *testing.T) {
	s := newSet(t, probe.Config{AllowTargets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	port, came := doors(t)
	for _, c := range []struct{ addr, kind string }{
		{"127.0.0.1", "loopback"},
		{"127.1.2.3", "loopback"},
		{"::1", "loopback"},
		{"::ffff:127.0.0.1", "loopback"},
		{"::127.0.0.1", "loopback"},
		{"64:ff9b::7f00:1", "loopback"},
		{"0.0.0.0", "unspecified"},
		{"0.1.2.3", "unspecified"},
		{"::", "unspecified"},
		{"::ffff:0.0.0.0", "unspecified"},
		{"169.254.169.254", "a metadata service"},
		{"::ffff:169.254.169.254", "a metadata service"},
		{"64:ff9b::a9fe:a9fe", "a metadata service"},
		{"fd00:ec2::254", "a metadata service"},
		{"fd20:ce::254", "a metadata service"},
		{"100.100.100.200", "a metadata service"},
		{"168.63.129.16", "a metadata service"},
		{"169.254.1.1", "link-local"},
		{"::ffff:169.254.1.1", "link-local"},
		{"fe80::1", "link-local"},
		{"fe80::1%lo", "link-local"},
		{"224.0.0.251", "multicast"},
		{"239.1.2.3", "multicast"},
		{"::ffff:224.0.0.251", "multicast"},
		{"ff02::fb", "multicast"},
		{"ff05::2", "multicast"},
		{"255.255.255.255", "broadcast"},
	} {
		for _, kind := range kinds {
			x := health.Target{Type: kind, Addr: netip.AddrPortFrom(netip.MustParseAddr(c.addr), port), Name: "a.test", Timeout: time.Minute}
			start := time.Now()
			r := s.Probe(t.Context(), x)
			if r.OK || !strings.Contains(r.Output, " is "+c.kind+": not probed unless health.allow_targets has it") {
				t.Errorf("%v %s: OK %v, %q", kind, c.addr, r.OK, r.Output)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("%v %s: refused after %v", kind, c.addr, took)
			}
			wantLine(t, r.Output)
		}
	}
	if n := came.Load(); n != 0 {
		t.Errorf("%d connections and datagrams arrived", n)
	}
}

func TestSet_Guard_AllowTargets(t *testing.T) {
	port, came := doors(t)
	for _, c := range []struct{ allow, addr string }{
		{"127.0.0.0/8", "127.0.0.1"},
		{"127.0.1.0/24", "127.0.1.7"},
		{"127.0.0.0/8", "::ffff:127.0.0.1"},
		{"::ffff:127.0.0.0/104", "127.0.0.1"},
		{"::1/128", "::1"},
	} {
		s := newSet(t, probe.Config{AllowTargets: []netip.Prefix{netip.MustParsePrefix(c.allow)}})
		before := came.Load()
		r := s.Probe(t.Context(), health.Target{Type: health.TypeTCP, Addr: netip.AddrPortFrom(netip.MustParseAddr(c.addr), port), Timeout: patience})
		if !r.OK {
			t.Errorf("%s with %s allowed: %s", c.addr, c.allow, r.Output)
		}
		for deadline := time.Now().Add(patience); came.Load() == before; {
			if time.Now().After(deadline) {
				t.Fatalf("%s with %s allowed: nobody came", c.addr, c.allow)
			}
		}
	}
	s := newSet(t, probe.Config{AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.1.0/24")}})
	if r := s.Probe(t.Context(), health.Target{Type: health.TypeTCP, Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}); r.OK {
		t.Error("an address beside the allowed network was probed")
	}
	if _, err := probe.New(probe.Config{AllowTargets: []netip.Prefix{{}}}); err == nil {
		t.Error("a network that is none was accepted")
	}
}

// listenBacklogZero is a listening socket that nobody accepts from.
func listenBacklogZero(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
}
