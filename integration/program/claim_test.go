package program_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/musterdns/muster/integration/program"
)

// Two tests that had the same network failed each other, two runs in a thousand.
func TestClaimNetwork_IsNobodyElses(t *testing.T) {
	seen := map[netip.Addr]bool{}
	for range 500 { // of 50,688: without a claim two are the same in nine runs of ten
		n, err := program.ClaimNetwork()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Release)
		if seen[n.Addr(1)] {
			t.Fatalf("%s is claimed twice", n.Addr(1))
		}
		seen[n.Addr(1)] = true
	}
	n, err := program.ClaimNetwork()
	if err != nil {
		t.Fatal(err)
	}
	n.Release()
	n.Release()
}

// The claim is at another address: 127.0.0.1 is for the program that is told the port.
func TestFreePort_IsNobodyElses(t *testing.T) {
	port, err := program.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 78, 0, 1), Port: port}); err == nil {
		l.Close()
		t.Errorf("port %d can be claimed again", port)
	}
}
