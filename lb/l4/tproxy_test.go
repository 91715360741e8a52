//go:build linux

package l4_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/kernel/kerneltest"
)

// rules are what brings packets to a transparent proxy; the package's comment
// names them.
var rules = [][]string{
	{"nft", "-f", "testdata/tproxy.nft"},
	{"ip", "rule", "add", "fwmark", "1", "lookup", "100"},
	{"ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100"},
}

// transparentLab is a client and an instance, and between them a machine on
// which this program runs as a transparent proxy, a process of its own.
func transparentLab(t *testing.T) (client, server *kerneltest.Machine) {
	t.Helper()
	kerneltest.Require(t)
	client, server = kerneltest.New(t, "client"), kerneltest.New(t, "server")
	between := kerneltest.New(t, "between")
	front, back := kerneltest.NewSwitch(t, "front"), kerneltest.NewSwitch(t, "back")
	front.Attach(client, "eth0", "10.1.0.2/24")
	front.Attach(between, "eth0", "10.1.0.1/24")
	back.Attach(between, "eth1", "10.2.0.1/24")
	back.Attach(server, "eth0", "10.2.0.2/24")
	client.Route("10.9.0.0/24", "10.1.0.1")
	server.Route("10.1.0.0/24", "10.2.0.1")
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
	cmd.Env = append(os.Environ(), childVariable+"=10.2.0.2:1", childListen+"=0.0.0.0:9000")
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
	client, server := transparentLab(t)
	for i, port := range []string{"7000", "7009"} {
		l := server.Listen("10.2.0.2:" + port)
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
			from, to := fmt.Sprintf("10.1.0.2:%d", 5000+10*i+n), "10.9.0.1:"+port
			c, err := client.Dial(net.Dialer{Timeout: patience}, "tcp", from, to)
			if err != nil {
				t.Fatalf("%s to %s: %v", from, to, err)
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			hear(t, c, from+" to 10.2.0.2:"+port+"\n")
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
	for _, to := range []string{"10.9.0.1:7001", "10.9.0.1:7010"} {
		c, err := client.Dial(net.Dialer{Timeout: 500 * time.Millisecond}, "tcp", "", to)
		if err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		wantEnding(t, c, "reset")
		c.Close()
	}
}
