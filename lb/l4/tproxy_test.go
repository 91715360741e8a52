//go:build linux

package l4_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel/kerneltest"
	"github.com/musterdns/muster/lb/l4"
)

// rules are what brings packets to a transparent proxy; the package's comment
// names them.
var rules = [][]string{
	{"nft", "-f", "testdata/tproxy.nft"},
	{"ip", "rule", "add", "fwmark", "1", "lookup", "100"},
	{"ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100"},
	{"ip", "-6", "rule", "add", "fwmark", "1", "lookup", "100"},
	{"ip", "-6", "route", "add", "local", "::/0", "dev", "lo", "table", "100"},
}

// family is the addresses of a transparentLab in one family.
type family struct {
	client, server string // their addresses
	asked          string // what the client connects to
	between        [2]string
	bits           int
	nets           [2]string // the asked one's, the client's
}

var (
	ip4 = family{"10.1.0.2", "10.2.0.2", "10.9.0.1", [2]string{"10.1.0.1", "10.2.0.1"}, 24, [2]string{"10.9.0.0/24", "10.1.0.0/24"}}
	ip6 = family{"fd00:1::2", "fd00:2::2", "fd00:9::1", [2]string{"fd00:1::1", "fd00:2::1"}, 64, [2]string{"fd00:9::/64", "fd00:1::/64"}}
)

// transparentLab is a client and an instance, and between them a machine on
// which this program runs as a transparent proxy, a process of its own, that
// listens at an address and forwards to the instance at another.
func transparentLab(t *testing.T, f *family, listen string) (client, server *kerneltest.Machine) {
	t.Helper()
	kerneltest.Require(t)
	client, server = kerneltest.New(t, "client"), kerneltest.New(t, "server")
	between := kerneltest.New(t, "between")
	front, back := kerneltest.NewSwitch(t, "front"), kerneltest.NewSwitch(t, "back")
	with := func(a string) string { return fmt.Sprintf("%s/%d", a, f.bits) }
	front.Attach(client, "eth0", with(f.client))
	front.Attach(between, "eth0", with(f.between[0]))
	back.Attach(between, "eth1", with(f.between[1]))
	back.Attach(server, "eth0", with(f.server))
	client.Route(f.nets[0], f.between[0])
	server.Route(f.nets[1], f.between[1])
	for _, argv := range rules {
		between.Must(func() error {
			out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
			}
			return nil
		})
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"="+net.JoinHostPort(f.server, "1"), childListen+"="+listen)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	between.Must(cmd.Start) // so it is on that machine
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the proxy: %v", err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the proxy said %q: %v", line, err)
	}
	return client, server
}

// TestProxy_Transparent: the instance sees the client's own address and port,
// and the port that the client asked for; the client sees what it asked.
func TestProxy_Transparent(t *testing.T) {
	for name, c := range map[string]struct {
		f      *family
		listen string
	}{
		"IPv4":                             {&ip4, "0.0.0.0:9000"},
		"IPv6":                             {&ip6, "[::]:9000"},
		"IPv4 at a listener for all":       {&ip4, "[::]:9000"},
		"IPv6 at a listener of an address": {&ip6, "[fd00:1::1]:9000"},
	} {
		t.Run(name, func(t *testing.T) { transparent(t, c.f, c.listen) })
	}
}

func transparent(t *testing.T, f *family, listen string) {
	client, server := transparentLab(t, f, listen)
	for i, port := range []string{"7000", "7009"} {
		at := net.JoinHostPort(f.server, port)
		l := server.Listen(at)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s to %s\n", c.RemoteAddr(), c.LocalAddr())
				echo(c.(*net.TCPConn))
				c.Close()
			}
		}()
		for n := range 3 {
			from, to := net.JoinHostPort(f.client, strconv.Itoa(5000+10*i+n)), net.JoinHostPort(f.asked, port)
			c, err := client.Dial(net.Dialer{Timeout: patience}, "tcp", from, to)
			if err != nil {
				t.Fatalf("%s to %s: %v", from, to, err)
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			hear(t, c, from+" to "+at+"\n")
			say(t, c, "hello\n")
			if _, err := io.WriteString(c, strings.Repeat("x", 200<<10)); err != nil {
				t.Fatal(err)
			}
			hear(t, c, strings.Repeat("x", 200<<10))
			c.Close()
		}
		l.Close()
		<-done
	}
	// A port of the range on which nobody listens, and one outside of it.
	for _, port := range []string{"7001", "7010"} {
		c, err := client.Dial(net.Dialer{Timeout: 500 * time.Millisecond}, "tcp", "", net.JoinHostPort(f.asked, port))
		if err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		wantEnding(t, c, "reset")
		c.Close()
	}
}

// isTransparent reports whether a Proxy's listening socket is transparent.
func isTransparent(t *testing.T, sockets map[string]syscall.Conn) bool {
	t.Helper()
	value := -1
	for _, s := range sockets {
		raw, err := s.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { value, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TRANSPARENT) }); err != nil {
			t.Fatal(err)
		}
	}
	return value == 1
}

// TestProxy_TakesOverTransparently: a Proxy that is transparent may take the
// sockets of one that is not over, and the other way round; one that is not to
// run leaves them as they were.
func TestProxy_TakesOverTransparently(t *testing.T) {
	kerneltest.Require(t)
	e := newEnv(t)
	e.add("web/a", serve(t, named("a")).Addr())
	first := e.start()
	early := dialFrom(t, "", first.Addr().String())
	hear(t, early, "a\n") // its Run has settled what its sockets are
	early.Close()
	after := func(p *l4.Proxy, transparent bool) *l4.Proxy {
		sockets := p.Sockets()
		return e.newProxy(func(c *l4.Config) {
			c.Listen, c.Transparent = p.Addr(), transparent
			c.Inherited = func(string) *os.File {
				for _, s := range sockets {
					return duplicate(t, s)
				}
				return nil
			}
		})
	}
	after(first.Proxy, true).Close()
	if isTransparent(t, first.Sockets()) {
		t.Error("a proxy that did not run has made the socket transparent")
	}
	second := after(first.Proxy, true)
	stop := run(t, second.Run)
	wait(t, "the socket to be transparent", func() bool { return isTransparent(t, second.Sockets()) })
	first.stop()
	third := after(second, false)
	run(t, third.Run)
	wait(t, "the socket to be opaque", func() bool { return !isTransparent(t, third.Sockets()) })
	stop()
	c := dialFrom(t, "", third.Addr().String())
	hear(t, c, "a\n")
	say(t, c, "hello\n")
}

// duplicate is a file of its own for a socket, as another process gets it.
func duplicate(t *testing.T, c syscall.Conn) *os.File {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var f *os.File
	if err := raw.Control(func(fd uintptr) {
		n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			f = os.NewFile(uintptr(n), "inherited")
		}
	}); err != nil || f == nil {
		t.Fatalf("duplicating a socket: %v", err)
	}
	return f
}
