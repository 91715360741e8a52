package nat_test

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

func TestPlane_Balances(t *testing.T) {
	l := newLab(t, 3)
	l.apply(t, l.services()...)
	for _, row := range []struct {
		service string
		clients [2]string
		vip     netip.AddrPort
	}{
		{"web4", [2]string{"10.1.0.2", "10.1.0.253"}, vip4},
		{"web6", [2]string{"[fd00:1::2]", "[fd00:1::89ab:cdef:1234:5678]"}, vip6},
	} {
		t.Run(row.service, func(t *testing.T) {
			seen := map[string]int{}
			for port := 20_000; port < 20_100; port++ {
				local := fmt.Sprintf("%s:%d", row.clients[port%2], port)
				c, err := l.client.Greet(local, row.vip.String())
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Echo(); err != nil {
					t.Fatal(err)
				}
				c.Close()
				seen[c.Name]++
				want, err := l.plane.Explain(row.service, netip.MustParseAddrPort(local))
				if err != nil {
					t.Fatal(err)
				}
				if want.Instance != c.Name {
					t.Errorf("client %s got %s, Explain says %+v", local, c.Name, want)
				}
			}
			t.Log(seen)
			if len(seen) != 3 {
				t.Errorf("100 connections went to %v, want all three", seen)
			}
		})
	}
}

// A backend that hangs with its connections open is killed.
func TestPlane_KillResetsClients(t *testing.T) {
	for _, row := range []struct {
		name, service string
		vip           netip.AddrPort
		all           bool // kill the last instance too
	}{
		{"IPv4", "web4", vip4, false},
		{"IPv6", "web6", vip6, false},
		{"the last instance", "web4", vip4, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLab(t, 2)
			s := l.services()[0]
			if row.vip == vip6 {
				s = l.services()[1]
			}
			l.apply(t, s)
			byName := map[string][]*conn{}
			var dead, living []*conn
			for n := 0; n < 16 || len(dead) < 2 || len(living) < 2; n++ {
				if n == 200 {
					t.Fatalf("200 connections went to %d and %d", len(dead), len(living))
				}
				c := l.dial(t, row.vip)
				byName[c.Name] = append(byName[c.Name], c)
				dead, living = byName["backend-0"], byName["backend-1"]
			}
			l.backends[0].Down("eth0")
			addr := l.backends[0].addr4
			if row.vip == vip6 {
				addr = l.backends[0].addr6
			}
			began := time.Now()
			reset := make(chan error, len(dead))
			for i, c := range dead {
				go func() { // half of them send, the others are silent
					err := c.UntilReset(i%2 == 0)
					t.Logf("sending %v: reset after %v", i%2 == 0, time.Since(began))
					reset <- err
				}()
			}
			if n := l.kill(t.Context(), t, row.service, addr); n != len(dead) {
				t.Errorf("%d connections killed, want %d", n, len(dead))
			}
			t.Logf("Kill took %v", time.Since(began))
			for range dead {
				if err := <-reset; err != nil {
					t.Error(err)
				}
			}
			for _, c := range living {
				if err := c.Echo(); err != nil {
					t.Errorf("a connection to the living instance: %v", err)
				}
			}
			if !row.all {
				for range 16 {
					if c := l.dial(t, row.vip); c.Name != "backend-1" {
						t.Errorf("a new connection went to %s", c.Name)
					}
				}
				return
			}
			l.kill(t.Context(), t, row.service, l.backends[1].addr4)
			for _, c := range living {
				if err := c.UntilReset(true); err != nil {
					t.Error(err)
				}
			}
			if _, err := l.client.Greet("", row.vip.String()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("connecting without instances: %v, want refused", err)
			}
		})
	}
}
