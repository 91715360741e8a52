package probe_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
)

// TestSet_Held_silent_machine: packets to the instance vanish, as when its
// machine has lost its power. A socket filter drops them before TCP sees them.
func TestSet_Held_silent_machine(t *testing.T) {
	t.Parallel() // the kernel's keepalives count in seconds
	s, lost := running(t, probe.Config{})
	i := startInstance(t)
	x := health.Target{Type: health.TypeHeld, Addr: i.addr, Interval: time.Second, Timeout: time.Second}
	wantResult(t, s.Probe(t.Context(), x), true, false, "connected")
	dropAll(t, <-i.conns)
	start := time.Now()
	wantLost(t, lost, x)
	if took := time.Since(start); took < x.Timeout || took > 5*time.Second { // 2 s by README, on a machine that is idle
		t.Errorf("told of it after %v", took)
	}
	r := s.Probe(t.Context(), x)
	wantResult(t, r, false, true, "no answer to TCP keepalives")
	if len(i.conns) > 0 {
		t.Error("it was tried again, which takes another timeout")
	}
}

func dropAll(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const returnConstant = 0x06 // BPF_RET|BPF_K: as many octets are kept as K says
	drop := []syscall.SockFilter{{Code: returnConstant}}
	if cerr := raw.Control(func(fd uintptr) {
		err = syscall.AttachLsf(int(fd), drop) //nolint:staticcheck // its successor is a module more
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
}
