package fault_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

// successor waits until a server has handed over, and returns the process that
// it handed over to, which ends with the test.
func successor(t *testing.T, s *fault.Server) *os.Process {
	t.Helper()
	logged(t, s, "a new process has taken over")
	text, err := s.Log()
	must(t, err)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		var line struct {
			Msg string
			PID int
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "a new process has taken over" {
			p, err := os.FindProcess(line.PID)
			must(t, err)
			t.Cleanup(func() {
				if err := p.Signal(syscall.SIGTERM); err != nil {
					t.Errorf("the new process has ended by itself: %v\n%s", err, s.LogTail())
				}
				// It is not our child: its address space is gone when it has ended.
				must(t, fault.Until(context.WithoutCancel(t.Context()), 10*time.Millisecond, func() error {
					if p.Signal(syscall.Signal(0)) == nil {
						return context.DeadlineExceeded
					}
					return nil
				}))
			})
			return p
		}
	}
	t.Fatal("the log does not say which process has taken over")
	return nil
}

func TestUpgrade_UnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := etcd(t, l)
	must(t, e.Load(t.Context(), fault.Instances(10, 2)))
	s := run(t, l, fault.Settings{Etcd: e.URL, Snapshot: l.Path("snapshot")})
	stop := s.Load(t.Context(), 10, 2, 1000)
	// Connections are made all the time, and each asks once.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	streams := make(chan error, 1)
	go func() {
		var err error
		for ctx.Err() == nil && err == nil {
			err = askOnce(s.DNS)
		}
		streams <- err
	}()

	must(t, s.Signal(syscall.SIGUSR2))
	<-s.Done()
	if s.ExitCode() != 0 {
		t.Errorf("the old process ends with %d, want 0\n%s", s.ExitCode(), s.LogTail())
	}
	p := successor(t, s)
	if p.Pid == s.PID() {
		t.Fatal("the old process is the new one")
	}
	// The new one is what answers, knows of changes, and serves the API.
	put(t, e, fault.Instance("late", "one"), "10.7.7.7:80")
	await(t, dial(t, s), "late."+fault.Zone, dns.TypeA, fault.Has("10.7.7.7"))
	must(t, s.Ready(t.Context()))
	cancel()
	if err := <-streams; err != nil {
		t.Errorf("over TCP: %v", err)
	}
	tally, err := stop()
	if err != nil || tally.Bad() != nil {
		t.Errorf("%v, %v", err, tally.Bad())
	}
	t.Logf("%d queries, %d lost", tally.Sent, tally.Lost)
}

// askOnce asks one question on a connection of its own.
func askOnce(server string) error {
	conn, err := net.DialTimeout("tcp", server, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := dns.Conn{Conn: conn}
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if err := c.WriteMsg(new(dns.Msg).SetQuestion(fault.Zone, dns.TypeSOA)); err != nil {
		return err
	}
	_, err = c.ReadMsg()
	return err
}

func TestUpgrade_ThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := etcd(t, l)
	must(t, e.Load(t.Context(), fault.Instances(1, 1)))
	s := run(t, l, fault.Settings{Etcd: e.URL})
	good, err := os.ReadFile(l.ConfigFile())
	must(t, err)
	must(t, os.WriteFile(l.ConfigFile(), []byte("dns: {listen: nowhere}\n"), 0o600))
	must(t, s.Signal(syscall.SIGUSR2))
	logged(t, s, "the upgrade failed, this process goes on")
	await(t, dial(t, s), fault.Zone, dns.TypeSOA, func(*dns.Msg) error { return nil })
	// Mended, it goes through.
	must(t, os.WriteFile(l.ConfigFile(), good, 0o600))
	must(t, s.Signal(syscall.SIGUSR2))
	<-s.Done()
	successor(t, s)
	must(t, s.Ready(t.Context()))
}

func TestUpgrade_OfAnEmbeddedEtcdIsRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := run(t, l, fault.Settings{})
	must(t, s.Signal(syscall.SIGUSR2))
	logged(t, s, "the upgrade failed, this process goes on", "embedded etcd cannot be handed over")
	must(t, s.Ready(t.Context()))
}
