//go:build linux && !portable

package dnsserver_test

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/wire"
)

// TestServer_UDP_Segments: replies to one client that are sent as one message reach it as
// datagrams, each whole and its own, whatever their sizes and who asks in between.
func TestServer_UDP_Segments(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		t.Run(listen, func(t *testing.T) {
			began, release := make(chan struct{}), make(chan struct{})
			s := dnstest.Start(t, handlerFunc(func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
				if q.ID == 0 {
					close(began)
					<-release
				}
				for range q.ID % 13 / 4 { // of several sizes, some in a row of one
					b.A(wire.Answer, wire.RefQName, 5, [4]byte{10, 0, 0, 2})
				}
				return address(b, q, from)
			}), func(c *dnsserver.Config) {
				c.Workers, c.Listen = 1, []netip.AddrPort{netip.MustParseAddrPort(listen)}
			})
			clients := []net.Conn{dial(t, s, "udp"), dial(t, s, "udp")}
			send(t, clients[0], query(t, 0))
			<-began // the worker is busy: what is sent now comes to it in few batches
			const last = 120
			for id := range uint16(last) {
				send(t, clients[id/7%2], query(t, id+1))
			}
			close(release)
			want := map[uint16]int{0: 0}
			for id := range uint16(last) {
				want[id+1] = int(id / 7 % 2)
			}
			buf := make([]byte, 512)
			for len(want) > 0 {
				i := 0
				for _, client := range want {
					i = client
					break
				}
				n, err := clients[i].Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				m := dnstest.Unpack(t, buf[:n])
				if client, ok := want[m.Id]; !ok || client != i || len(m.Answer) != int(m.Id%13/4)+1 {
					t.Fatalf("client %d: %v", i, m)
				}
				delete(want, m.Id)
			}
		})
	}
}

// TestServer_UDP_SegmentsRefused: where the kernel takes several replies as one message they
// come so to a client that can take that (UDP_GRO), and where it does not, one by one.
func TestServer_UDP_SegmentsRefused(t *testing.T) {
	for _, apart := range []bool{false, true} {
		began, release := make(chan struct{}), make(chan struct{})
		s := dnstest.Start(t, handlerFunc(func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
			if q.ID == 0 {
				close(began)
				<-release
			}
			return address(b, q, from)
		}), func(c *dnsserver.Config) { c.Workers = 1 })
		if apart {
			refuseSegments(t, s.Addr.Port())
		}
		c := dial(t, s, "udp")
		raw, err := c.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) }); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatalf("UDP_GRO, which Linux 5.0 has: %v", err)
		}
		send(t, c, query(t, 0))
		<-began
		const last = 16
		for id := range uint16(last) {
			send(t, c, query(t, id+1))
		}
		close(release)
		buf := make([]byte, 4096)
		var sizes []int
		for total := 0; total < (last+1)*50; {
			n, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			total += n
			sizes = append(sizes, n)
		}
		want := 2 // the first reply, and all others
		if apart {
			want = last + 1
		}
		if len(sizes) != want {
			t.Errorf("the replies came as %d octets", sizes)
		}
	}
}

// refuseSegments has the kernel refuse UDP_SEGMENT on the server's socket: it goes only with
// checksums.
func refuseSegments(t *testing.T, port uint16) {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, file := range files {
		fd, err := strconv.Atoi(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil || kind != unix.SOCK_DGRAM {
			continue
		}
		name, err := unix.Getsockname(fd)
		if at, ok := name.(*unix.SockaddrInet4); err == nil && ok && at.Port == int(port) {
			found = true
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found {
		t.Fatal("the server's socket is not there")
	}
}
