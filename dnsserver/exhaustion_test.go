package dnsserver_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
)

// TestServer_NoFileDescriptorsLeft: UDP goes on untouched, accepting does not
// spin, and TCP is back when they are. The limit is that of the whole
// process, so this test is not parallel to any.
func TestServer_NoFileDescriptorsLeft(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address), func(c *dnsserver.Config) { c.FirstByteTimeout = time.Minute })
	udp := dial(t, s, "udp")
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	first := dial(t, s, "tcp") // its descriptor is the highest, about
	raw, err := first.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	low := limit
	if err := raw.Control(func(fd uintptr) { low.Cur = uint64(fd) + 40 }); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	var clients []net.Conn
	began := time.Now()
	for s.Server.Stats().AcceptErrors == 0 {
		if time.Since(began) > 10*time.Second {
			t.Fatal("descriptors don't run out")
		}
		c, err := net.Dial("tcp", s.Addr.String())
		if err == nil {
			clients = append(clients, c)
		} else if !errors.Is(err, syscall.EMFILE) {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 512)
	for id := range uint16(1000) {
		send(t, udp, query(t, id))
		if _, err := udp.Read(buf); err != nil {
			t.Fatalf("UDP query %d: %v", id, err)
		}
	}
	if spent := s.Server.Stats().AcceptErrors; spent > 100 {
		t.Errorf("%d failed accepts: the listener spins", spent)
	}
	for _, c := range clients {
		c.Close()
	}
	restore()
	began = time.Now()
	dnstest.Want(t, s.Query(t, "a. A +tcp"), "NOERROR", "answer a. 5 IN A 10.0.0.1")
	if took := time.Since(began); took > 8*time.Second { // a second's wait at most, and a busy machine
		t.Errorf("TCP is back after %s", took)
	}
}
