package kernel_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// cutOff has a machine's packets to and from the registry get lost.
func cutOff(t *testing.T, machine string) (heal func()) {
	t.Helper()
	in(t, machine, "nft add table ip cut")
	for hook, end := range map[string]string{"input": "saddr", "output": "daddr"} {
		in(t, machine, "nft add chain ip cut "+hook+" { type filter hook "+hook+" priority 0 ; }")
		in(t, machine, "nft add rule ip cut "+hook+" ip "+end+" "+network+"5 drop")
	}
	return func() { in(t, machine, "nft delete table ip cut") }
}

// The faults that a holder may have. What is mended is mended once another holds
// the address: the one before must not come back to it.
func vipFaults() map[string]func(t *testing.T, holder *program.Process) (mend func()) {
	return map[string]func(*testing.T, *program.Process) func(){
		"killed": func(t *testing.T, holder *program.Process) func() {
			t.Helper()
			must(t, fault.Kill(holder))
			return func() {}
		},
		"stopped": func(t *testing.T, holder *program.Process) func() {
			t.Helper()
			must(t, holder.Signal(syscall.SIGSTOP))
			return func() { must(t, holder.Signal(syscall.SIGCONT)) }
		},
		"cut off from etcd": func(t *testing.T, _ *program.Process) func() {
			t.Helper()
			return cutOff(t, "lb-a")
		},
		"told to end": func(t *testing.T, holder *program.Process) func() {
			t.Helper()
			holder.Stop()
			return func() {}
		},
	}
}

func TestVIP_IsTakenOverAndNeverHeldByTwo(t *testing.T) {
	for name, fail := range vipFaults() {
		t.Run(name, func(t *testing.T) {
			if outside(t) {
				return
			}
			takeOver(t, fail)
		})
	}
}

// takeOver has lb-a hold the address, breaks it, and sees what clients see until
// lb-b holds it and lb-a is mended.
func takeOver(t *testing.T, fail func(*testing.T, *program.Process) func()) {
	l := newLab(t)
	registryMachine(t, l)
	instance(t, l, 11, 8080)
	machine(t, "lb-a", 21)
	machine(t, "lb-b", 22)
	a := serve(t, l, "lb-a", pair(l, "lb-a"))
	register(t, l, "lb-a", 11, 8080)
	answers(t, vip+":80", network+"11")
	status := []string{"proxy", "status"}
	shows(t, l, "lb-a", status, " "+vip+"/24 eth0 yes ")
	serve(t, l, "lb-b", pair(l, "lb-b"))
	shows(t, l, "lb-b", status, " "+vip+"/24 eth0 no 0 ")

	w := newWitnesses(t, l)
	w.see(t, "before the fault", network+"21")
	mend := fail(t, a)
	w.see(t, "after the fault", network+"22")
	shows(t, l, "lb-b", status, " "+vip+"/24 eth0 yes 1 ")
	mend()
	if a.Ended() == nil {
		shows(t, l, "lb-a", status, " "+vip+"/24 eth0 no ")
	}
	w.see(t, "after the mending", network+"22")
	w.judge(t, "lb-a", "lb-b")

	if text := metrics(t, "lb-b"); !strings.Contains(text, `muster_proxy_vip_held{vip="`+vip+`"} 1`) {
		t.Error("the metrics do not say who holds the address")
	}
	// etcd knows of the key, and it is no bad record.
	if out, err := muster(t, l, "lb-b", "doctor"); strings.Contains(out, "/vips/") {
		t.Errorf("muster doctor takes the address's key for a bad record: %v\n%s", err, out)
	}
}

// witnesses see who answers at the virtual address: a client as all are, two that
// send to one server each whatever the link says, and one that asks the link. Another
// asks the instance itself, by no server: what it waits for is this machine, with
// whatever else runs here.
type witnesses struct {
	ordinary, toA, toB, link, direct *probe
	macA, macB                       string
}

// The ways to an instance by the virtual address: through the kernel and through
// the process.
const (
	byKernel  = vip + ":80"
	byProcess = vip + ":81"
)

// atInstance is where the instance is.
const atInstance = network + "11:8080"

func newWitnesses(t *testing.T, l *fault.Lab) *witnesses {
	t.Helper()
	w := &witnesses{macA: mac(t, "lb-a"), macB: mac(t, "lb-b")}
	for host, name := range map[int]string{3: "ordinary", 6: "to-a", 7: "to-b", 8: "direct"} {
		machine(t, name, host)
	}
	in(t, "to-a", "ip neighbour replace "+vip+" lladdr "+w.macA+" dev eth0 nud permanent")
	in(t, "to-b", "ip neighbour replace "+vip+" lladdr "+w.macB+" dev eth0 nud permanent")
	w.ordinary = startProbe(t, l, "ordinary", probeVerb, byKernel, byProcess)
	w.toA = startProbe(t, l, "to-a", probeVerb, byKernel, byProcess)
	w.toB = startProbe(t, l, "to-b", probeVerb, byKernel, byProcess)
	w.link = startProbe(t, l, "ordinary", probeARPVerb)
	w.direct = startProbe(t, l, "direct", probeVerb, atInstance)
	return w
}

// stalled is for how long this machine kept a client waiting that nothing failed.
func (w *witnesses) stalled(t *testing.T) time.Duration {
	t.Helper()
	d := longest(w.direct.answers(t), atInstance)
	t.Logf("%s: the machine kept a client waiting for up to %v", atInstance, d.Round(time.Millisecond))
	return d
}

// mac is the hardware address of a machine.
func mac(t *testing.T, machine string) string {
	t.Helper()
	fields := strings.Fields(in(t, machine, "ip -oneline link show dev eth0"))
	i := slices.Index(fields, "link/ether")
	if i < 0 || i+1 == len(fields) {
		t.Fatalf("%s: eth0 has no hardware address: %q", machine, fields)
	}
	return fields[i+1]
}

// enough is how many answers show that a server answers.
const enough = 50

// see waits until the ordinary client has answers from a server, both ways.
func (w *witnesses) see(t *testing.T, when, server string) {
	t.Helper()
	from := time.Now().UnixNano()
	eventually(t, func() error {
		n := map[string]int{}
		for _, a := range w.ordinary.answers(t) {
			if a.start > from && a.who == server {
				n[a.what]++
			}
		}
		if n[byKernel] < enough || n[byProcess] < enough {
			return fmt.Errorf("%s the client has %d and %d answers from %s, want %d each", when, n[byKernel], n[byProcess], server, enough)
		}
		return nil
	})
}

// judge fails the test if clients were without an answer for longer than is
// promised, or the server before answered what was asked after the next had
// answered something.
func (w *witnesses) judge(t *testing.T, before, next string) {
	t.Helper()
	all := w.ordinary.answers(t)
	most := lease + 2*time.Second + w.stalled(t)
	for _, way := range []string{byKernel, byProcess} {
		away := longest(all, way)
		t.Logf("%s: away for %v", way, away.Round(time.Millisecond))
		if away > most {
			t.Errorf("%s: nobody answered for %v, want at most %v", way, away, most)
		}
	}
	all = append(append(all, w.toA.answers(t)...), w.toB.answers(t)...)
	addresses := map[string]string{"lb-a": network + "21", "lb-b": network + "22"}
	macs := map[string]string{"lb-a": w.macA, "lb-b": w.macB}
	for _, way := range []string{byKernel, byProcess} {
		passedOn(t, all, way, addresses[before], addresses[next])
	}
	passedOn(t, w.link.answers(t), "arp", macs[before], macs[next])
}

// longest is the longest time between two answers.
func longest(list []answer, what string) time.Duration {
	var gap time.Duration
	var last int64
	for _, a := range list {
		if a.what != what {
			continue
		}
		if last > 0 {
			gap = max(gap, time.Duration(a.end-last))
		}
		last = a.end
	}
	return gap
}

// passedOn fails the test unless both have answered, first a and from some moment
// on b alone.
func passedOn(t *testing.T, list []answer, what, a, b string) {
	t.Helper()
	var lastA, firstB int64 // when a was asked last, when b had answered first
	numberA, numberB, late := 0, 0, 0
	for _, x := range list {
		switch {
		case x.what != what:
		case x.who == a:
			numberA++
			lastA = max(lastA, x.start)
		case x.who == b:
			numberB++
			if firstB == 0 || x.end < firstB {
				firstB = x.end
			}
		default:
			t.Fatalf("%s: an answer by %s, who is neither", what, x.who)
		}
	}
	for _, x := range list {
		if x.what == what && x.who == a && x.start > firstB {
			late++
		}
	}
	if numberA < enough || numberB < enough {
		t.Errorf("%s: %d answers by %s, then %d by %s; want %d at least", what, numberA, a, numberB, b, enough)
	}
	if late > 0 {
		t.Errorf("%s: two answered: of %d answers by the one before, %d were to questions put after the next had answered, the last %v after",
			what, numberA, late, time.Duration(lastA-firstB))
		return
	}
	t.Logf("%s: %d answers, then from %v later on %d by the next", what, numberA, time.Duration(firstB-lastA).Round(time.Millisecond), numberB)
}
