package kernel_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/netlab"
	"github.com/musterdns/muster/integration/program"
)

const (
	// resetMax is how long after the verdict a client of a dead instance may be
	// without its reset, on a machine that is idle: the middle of several
	// instances'. The tests of other packages run beside these: busy times that.
	resetMax = 100 * time.Millisecond
	busy     = 3
	// resetRounds is how many instances die, one after the other.
	resetRounds = 3
	// idleClients have a connection each and wait for something to read.
	idleClients = 40
)

// verdict waits until the events tell that an instance is failing, and returns
// when that was.
func verdict(t *testing.T, events *program.Process, id string) time.Time {
	t.Helper()
	var at time.Time
	eventually(t, func() error {
		for line := range strings.Lines(events.Output()) {
			var e struct {
				At                 time.Time
				Kind, Instance, To string
			}
			if json.Unmarshal([]byte(line), &e) == nil && e.Kind == "health" && e.Instance == id && e.To == "failing" {
				at = e.At
				return nil
			}
		}
		return fmt.Errorf("no event tells that %s is failing:\n%s", id, events.Output())
	})
	return at
}

// Clients that wait for a dead instance's answer, and send nothing themselves, are
// reset once its checks have failed.
func TestNAT_ResetsSilentClientsSoonAfterTheVerdict(t *testing.T) {
	if outside(t) {
		return
	}
	l := newLab(t)
	machine(t, "lb", 10)
	in(t, "lb", "ip address add "+vip+"/24 dev eth0")
	serve(t, l, "lb", configuration(l, `{listeners: [{name: front, mode: nat, listen: "`+vip+`:80", service: web, masquerade: true}]}`))
	hosts := []int{11, 12, 13, 14}
	for _, host := range hosts {
		instance(t, l, host, 8080)
		register(t, l, "lb", host, 8080)
	}
	shows(t, l, "lb", []string{"proxy", "status"}, " web-14 yes ")
	events, err := l.Start("events", netlab.On("lb", l.Binary, "events", "web", "-o", "json")...)
	must(t, err)
	// An event shows that it is listening.
	eventually(t, func() error {
		_, err := muster(t, l, "lb", "weight", "web/web-14", "2")
		if err == nil && !strings.Contains(events.Output(), "web-14") {
			_, err = muster(t, l, "lb", "weight", "web/web-14", "1")
			return errors.Join(err, errors.New("no event tells of the weight"))
		}
		return err
	})

	resets := map[string]chan time.Time{}
	for _, host := range hosts {
		resets[fmt.Sprint(network, host)] = make(chan time.Time, idleClients)
	}
	counts := map[string]int{}
	for range idleClients {
		c, err := dial(vip + ":80")
		must(t, err)
		t.Cleanup(func() { c.Close() })
		from, err := c.ask()
		must(t, err)
		counts[from]++
		must(t, c.SetDeadline(time.Now().Add(2*patience)))
		go func() {
			_, err := c.r.ReadByte()
			at := time.Now()
			if !errors.Is(err, syscall.ECONNRESET) {
				at = time.Time{} // closed when the test ends, or worse
			}
			resets[from] <- at
		}()
	}
	var took []time.Duration
	for _, host := range hosts[:resetRounds] {
		addr, id := fmt.Sprint(network, host), fmt.Sprintf("web-%d", host)
		in(t, id, "ip link set eth0 down")
		at := verdict(t, events, id)
		var last time.Duration
		for range counts[addr] {
			reset := <-resets[addr]
			if reset.IsZero() {
				t.Fatalf("a connection to %s, which is dead, is not reset", id)
			}
			last = max(last, reset.Sub(at))
		}
		t.Logf("%s: all of %d clients are reset %v after the verdict", id, counts[addr], last.Round(time.Millisecond))
		took = append(took, last)
	}
	slices.Sort(took)
	if took[resetRounds/2] > busy*resetMax {
		t.Errorf("clients are reset %v after the verdict, want the middle one within %v", took, busy*resetMax)
	}
}
