package fault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

// zoneText is a static zone with one address at its apex.
func zoneText(address string) string {
	return fmt.Sprintf("@ 60 SOA ns1 hostmaster 1 3600 600 86400 60\n@ 60 NS ns1\nns1 60 A 10.0.0.53\n@ 60 A %s\n", address)
}

// write writes a file of the lab.
func write(t *testing.T, l *fault.Lab, name, text string) {
	t.Helper()
	if err := os.WriteFile(l.Path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// dial makes a client that ends with the test.
func dial(t *testing.T, s *fault.Server) *fault.Client {
	t.Helper()
	c, err := fault.Dial(t.Context(), s.DNS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// await fails the test unless the answer becomes right.
func await(t *testing.T, c *fault.Client, name string, qtype uint16, right func(*dns.Msg) error) *dns.Msg {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	m, err := c.Await(ctx, name, qtype, right)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// logged fails the test unless a line of the log gets all of the words.
func logged(t *testing.T, s *fault.Server, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Logged(ctx, words...); err != nil {
		t.Fatal(err)
	}
}

// metric fails the test unless a metric has the value.
func metric(t *testing.T, s *fault.Server, name string, want float64) {
	t.Helper()
	if got, err := s.Metric(t.Context(), name); err != nil || got != want {
		t.Errorf("%s is %v (%v), want %v", name, got, err, want)
	}
}

// static are the settings of a server with two static zones.
func static(l *fault.Lab) fault.Settings {
	return fault.Settings{Zones: []string{
		fmt.Sprintf("{name: one.test., file: %q}", l.Path("one.zone")),
		fmt.Sprintf("{name: two.test., file: %q}", l.Path("two.zone")),
	}}
}

// run configures and starts a server.
func run(t *testing.T, l *fault.Lab, settings fault.Settings) *fault.Server {
	t.Helper()
	s, err := l.Run(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReload_RefusesABadConfigurationAndABadZoneFile(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	write(t, l, "one.zone", zoneText("10.1.0.1"))
	write(t, l, "two.zone", zoneText("10.2.0.1"))
	s := run(t, l, static(l))
	c := dial(t, s)
	await(t, c, "one.test.", dns.TypeA, fault.Has("10.1.0.1"))

	good, err := os.ReadFile(l.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	// A bad configuration, found by the change of the file alone.
	lines := strings.Count(string(good), "\n")
	if err := os.WriteFile(l.ConfigFile(), append(good, "healht: {}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	place := fmt.Sprintf("muster.yaml:%d:1", lines+1)
	logged(t, s, "ERROR", "refused", place, "healht", "health")
	metric(t, s, "muster_config_reload_failures_total", 1)
	metric(t, s, "muster_config_reloads_total", 0)
	if out, err := l.CLI(t.Context(), "doctor"); err == nil || !strings.Contains(out, place) || !strings.Contains(out, "healht") {
		t.Errorf("muster doctor: %v, want exit code 1 and %s in:\n%s", err, place, out)
	}
	if out, err := l.CLI(t.Context(), "check", l.ConfigFile()); err == nil || !strings.Contains(out, place) {
		t.Errorf("muster check: %v, want exit code 1 and %s in:\n%s", err, place, out)
	}
	await(t, c, "one.test.", dns.TypeA, fault.Has("10.1.0.1"))

	// The good one again, with one zone that is bad and one that is new.
	write(t, l, "one.zone", zoneText("not-an-address"))
	write(t, l, "two.zone", zoneText("10.2.0.2"))
	if err := os.WriteFile(l.ConfigFile(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(t, c, "two.test.", dns.TypeA, fault.Has("10.2.0.2"))
	await(t, c, "one.test.", dns.TypeA, fault.Has("10.1.0.1"))
	logged(t, s, "ERROR", "zone file is refused", "one.zone:4", "not-an-address")
	if out, err := l.CLI(t.Context(), "doctor"); err == nil || !strings.Contains(out, "one.zone:4") {
		t.Errorf("muster doctor: %v, want exit code 1 and one.zone:4 in:\n%s", err, out)
	}

	// Mended, found by the change of the file alone.
	write(t, l, "one.zone", zoneText("10.1.0.3"))
	await(t, c, "one.test.", dns.TypeA, fault.Has("10.1.0.3"))
	if out, err := l.CLI(t.Context(), "doctor"); err != nil {
		t.Errorf("muster doctor after all is mended: %v\n%s", err, out)
	}
}

func TestReload_StormLosesNothingAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	write(t, l, "one.zone", zoneText("10.1.0.1"))
	write(t, l, "two.zone", zoneText("10.2.0.1"))
	s := run(t, l, static(l))
	await(t, dial(t, s), "two.test.", dns.TypeA, fault.Has("10.2.0.1"))
	joined := func() error { // becoming a member, which takes some goroutines, may take a moment longer
		out, err := l.CLI(t.Context(), "status", "-o", "json")
		if err == nil && !strings.Contains(strings.ReplaceAll(out, " ", ""), `"self":true`) {
			err = errors.New("the server is no member yet:\n" + out)
		}
		return err
	}
	if err := s.Poll(t.Context(), joined); err != nil {
		t.Fatal(err)
	}
	before := resources(t, s)

	// FAULTS: 100 signals in 10 s; here in half of that.
	const signals, interval = 100, 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), signals*interval)
	defer cancel()
	sent := make(chan int, 1)
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
				_ = s.Signal(syscall.SIGHUP)
			case <-ctx.Done():
				sent <- n
				return
			}
		}
	}()
	load := fault.Load{Addr: s.DNS, Rate: 500, Names: []string{"one.test."}, Judge: fault.Has("10.1.0.1")}
	tally, err := load.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := tally.Bad(); err != nil {
		t.Error(err)
	}
	n := <-sent
	reloads, err := s.Metric(t.Context(), "muster_config_reloads_total")
	if err != nil || reloads < 1 || reloads > float64(n) {
		t.Errorf("%v reloads (%v) of %d signals", reloads, err, n)
	}
	metric(t, s, "muster_config_reload_failures_total", 0)
	// The connection that asks is one more; so may be one of the etcd inside. What the
	// last reload and the load's end leave is gone a moment later.
	settle, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := fault.Until(settle, 100*time.Millisecond, func() error {
		if after := resources(t, s); after.goroutines > before.goroutines+5 || after.files > before.files+3 {
			return fmt.Errorf("%+v after %d signals, %+v before", after, n, before)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// used is what a server holds.
type used struct{ goroutines, files float64 }

func resources(t *testing.T, s *fault.Server) used {
	t.Helper()
	var u used
	var err error
	if u.goroutines, err = s.Metric(t.Context(), "go_goroutines"); err != nil {
		t.Fatal(err)
	}
	if u.files, err = s.Metric(t.Context(), "process_open_fds"); err != nil {
		t.Fatal(err)
	}
	return u
}
