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

func TestFreePort_IsNobodyElses(t *testing.T) {
	seen := map[int]bool{}
	for range 500 { // of 20,000: without a claim two are the same in 499 runs of 500
		port, err := program.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d is given away twice", port)
		}
		seen[port] = true
	}
}

// The claim was a socket at an address of its own, beside which nobody could listen
// at the port of every address, as the targets of checks do by the hundred thousand.
func TestFreePort_IsFreeAtEveryAddress(t *testing.T) {
	port, err := program.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
