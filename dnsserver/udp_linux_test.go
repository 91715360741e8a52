//go:build linux && !portable

package dnsserver_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/wire"
)

// TestServer_UDP_Allocations: a query and its answer, all the way through the
// sockets, allocate nothing.
func TestServer_UDP_Allocations(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address), func(c *dnsserver.Config) { c.NSID = "dns-1" })
	c := dial(t, s, "udp")
	asked, err := askWith(&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, cookieOption(clientCookie)).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for name, msg := range map[string][]byte{"plain": query(t, 1), "with NSID and a cookie": asked} {
		buf := make([]byte, 512)
		ask := func() {
			send(t, c, msg)
			if _, err := c.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
		ask()
		if n := testing.AllocsPerRun(500, ask); n != 0 {
			t.Errorf("%s: %v allocations a query", name, n)
		}
	}
}

// warming is a handler that is told of batches.
type warming struct {
	handlerFunc
	warm func([]*wire.Query)
}

func (w warming) Warm(queries []*wire.Query) { w.warm(queries) }

// TestServer_UDP_Warm: the handler is told of what it will be asked, and of nothing that it
// will not be. When that panics, answers are the same.
func TestServer_UDP_Warm(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	told := make(chan []uint16, 64)
	s := dnstest.Start(t, warming{
		func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
			if q.ID == 0 {
				close(began)
				<-release
			}
			return address(b, q, from)
		},
		func(queries []*wire.Query) {
			var ids []uint16
			for _, q := range queries {
				ids = append(ids, q.ID)
			}
			told <- ids
			panic("a fault")
		},
	}, func(c *dnsserver.Config) { c.Workers = 1 })
	c := dial(t, s, "udp")
	send(t, c, query(t, 0))
	<-began // the worker is busy: what is sent now comes to it in few batches
	const last = 40
	for id := range uint16(last) {
		msg := query(t, id+1)
		if (id+1)%4 == 0 {
			msg = msg[:len(msg)-1]
		}
		send(t, c, msg)
	}
	close(release)
	buf := make([]byte, 512)
	for range last + 1 {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		m := dnstest.Unpack(t, buf[:n])
		if wrong := m.Id > 0 && m.Id%4 == 0; (m.Rcode == dns.RcodeFormatError) != wrong || (len(m.Answer) == 1) == wrong {
			t.Errorf("query %d: %v", m.Id, m)
		}
	}
	batches, before := uint64(len(told)), uint16(0)
	if batches == 0 {
		t.Error("it was told of nothing")
	}
	for range batches {
		for _, id := range <-told {
			if id <= before || id%4 == 0 {
				t.Errorf("it was told of query %d, after %d", id, before)
			}
			before = id
		}
	}
	if st := s.Server.Stats(); st.UDP.Panics != batches || st.UDP.Received != last+1 {
		t.Errorf("%d panics in %d batches, %d received", st.UDP.Panics, batches, st.UDP.Received)
	}
}

// TestServer_UDP_WildcardAnswersFromTheAddressAsked: a client that asked
// 127.0.0.3 takes no answer from 127.0.0.1. Deferred answers too.
func TestServer_UDP_WildcardAnswersFromTheAddressAsked(t *testing.T) {
	later := handlerFunc(func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
		if q.Type == wire.TypeTXT {
			return dnsserver.Defer
		}
		return address(b, q, from)
	})
	for wildcard, asked := range map[string][]string{"0.0.0.0:0": {"127.0.0.1", "127.0.0.3"}, "[::]:0": {"::1"}} {
		s := dnstest.Start(t, later, func(c *dnsserver.Config) {
			c.Listen = []netip.AddrPort{netip.MustParseAddrPort(wildcard)}
			c.Slow = echoSlow
		})
		for _, a := range asked {
			at := dnstest.At(netip.AddrPortFrom(netip.MustParseAddr(a), s.Addr.Port()))
			dnstest.Want(t, at.Query(t, "a. A"), "NOERROR", "answer a. 5 IN A 10.0.0.1")
			dnstest.Want(t, at.Query(t, "a. TXT"), "NOERROR qr")
		}
	}
}

// TestServer_UDP_NotInThePoller: a poller that waits for a socket makes each
// answer dearer (see socket).
func TestServer_UDP_NotInThePoller(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address), func(c *dnsserver.Config) { c.Workers = 2 })
	dnstest.Want(t, s.Query(t, "a. A"), "NOERROR", "answer a. 5 IN A 10.0.0.1")
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	polled, sockets := map[int]bool{}, []int{}
	for _, file := range files {
		info, err := os.ReadFile(file)
		if err != nil {
			continue // closed since
		}
		for line := range strings.Lines(string(info)) { // an epoll instance lists what it watches: proc_pid_fdinfo(5)
			var fd int
			if _, err := fmt.Sscanf(line, "tfd: %d", &fd); err == nil {
				polled[fd] = true
			}
		}
		fd, err := strconv.Atoi(filepath.Base(file))
		if err != nil {
			t.Fatal(err)
		}
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil || kind != unix.SOCK_DGRAM {
			continue
		}
		if name, err := unix.Getsockname(fd); err == nil {
			if at, ok := name.(*unix.SockaddrInet4); ok && at.Port == int(s.Addr.Port()) {
				sockets = append(sockets, fd)
			}
		}
	}
	if len(sockets) != 2 || len(polled) == 0 {
		t.Fatalf("sockets %v, polled %v", sockets, polled)
	}
	for _, fd := range sockets {
		if polled[fd] {
			t.Errorf("socket %d is in the poller", fd)
		}
	}
}

// TestServer_UDP_Batches: what has come takes a system call for each 32.
func TestServer_UDP_Batches(t *testing.T) {
	s, err := dnsserver.New(dnsserver.Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Workers: 1, Handler: handlerFunc(address)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const queries = 96
	for id := range uint16(queries) {
		send(t, c, query(t, id))
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	buf := make([]byte, 512)
	for range queries {
		if _, err := c.Read(buf); err != nil {
			t.Error(err)
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if st := s.Stats().UDP; st.Received != queries || st.Batches != queries/32 {
		t.Errorf("%d queries in %d batches, want 3", st.Received, st.Batches)
	}
}
