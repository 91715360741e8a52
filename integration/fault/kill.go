package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/program"
)

// Death is a way in which an instance dies, and how that is found out.
type Death struct {
	Title  string
	Checks string // of the service, JSON
	Cause  string // that the server tells of
	// holder is the command that registers the instance and is killed instead
	// of it, or whose child is; nil: the registration stays.
	holder  func(l *Lab, service string, host byte) []string
	orphan  bool // the holder is killed, not the instance
	Percent int  // of the kills that must be answered in Limit
	Limit   time.Duration
}

// leaseSeconds is the lease that is left to run out.
const leaseSeconds = 2

// Deaths are those that Crash measures.
func Deaths() []Death {
	register := func(flags ...string) func(*Lab, string, byte) []string {
		return func(l *Lab, service string, host byte) []string {
			argv := []string{
				"env", "MUSTER_ADDR=http://" + l.at(hostMuster, portAdmin), l.Binary, "register", service,
				"--id", "goes", "--address", l.Addr(host).String(), "--port", strconv.Itoa(portBackend), "--check", "none",
			}
			argv = append(argv, flags...)
			for i, a := range argv {
				if a == "ADDR" {
					argv[i] = l.at(host, portBackend)
				}
			}
			return argv
		}
	}
	return []Death{
		{Title: "held check", Checks: `[{"type":"held"}]`, Cause: "held", Percent: 99, Limit: 50 * time.Millisecond},
		// etcd writes the deregistration to its disk, and more than one lane does.
		{
			Title: "child of muster register", Checks: `[]`, Cause: "deleted", holder: register(append([]string{"--", self()}, BackendArgs("ADDR")...)...),
			Percent: 99, Limit: 250 * time.Millisecond,
		},
		{Title: "http check that keeps its connection, each 2 s, fall 3", Checks: `[{"type":"http","path":"/","keep":true}]`, Cause: "http", Percent: 100, Limit: 3500 * time.Millisecond},
		{Title: "http check each 1 s, fall 2", Checks: `[{"type":"http","path":"/","interval":"1s","fall":2}]`, Cause: "http", Percent: 100, Limit: 2200 * time.Millisecond},
		{Title: "http check by default: each 2 s, fall 3", Checks: `[{"type":"http","path":"/"}]`, Cause: "http", Percent: 100, Limit: 3500 * time.Millisecond},
		// etcd looks for leases that have run out each 500 ms.
		{Title: "lease of 2 s alone", Checks: `[]`, Cause: "lease", holder: register("--lease", strconv.Itoa(leaseSeconds)+"s"), orphan: true, Percent: 100, Limit: leaseSeconds*time.Second + 700*time.Millisecond},
	}
}

// self is this program.
func self() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

// Crash measures how long a killed instance stays in the answers: from kill -9
// of the process that serves to the last wrong answer. Each of the lanes is a
// service of two instances, one of which is killed again and again at a moment
// that the checks know nothing of; the lanes go on at the same time. What the
// server tells of each is asked for beside it.
func Crash(ctx context.Context, l *Lab, d Death, lanes, runs int) (Crashes, error) {
	e, err := l.Etcd(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	s, err := l.Run(ctx, Settings{Etcd: e.URL})
	if err != nil {
		return nil, err
	}
	var running sync.WaitGroup
	crashes, errs := make([]Crashes, lanes), make([]error, lanes)
	for i := range lanes {
		running.Go(func() { crashes[i], errs[i] = l.crashes(ctx, e, s, i, d, runs) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.LogTail())
	}
	return slices.Concat(crashes...), nil
}

// crashes are the runs of one lane.
func (l *Lab) crashes(ctx context.Context, e *Etcd, s *Server, lane int, d Death, runs int) (Crashes, error) {
	service, stays, goes := fmt.Sprintf("lane%d", lane), byte(hostBackends+2*lane), byte(hostBackends+2*lane+1)
	if _, err := e.Put(ctx, Keys+"services/"+service, `{"checks":`+d.Checks+`}`); err != nil {
		return nil, err
	}
	if _, err := l.StartBackend(ctx, stays); err != nil {
		return nil, err
	}
	registered := map[string]byte{"stays": stays, "goes": goes}
	if d.holder != nil {
		delete(registered, "goes")
	}
	for id, host := range registered {
		if _, err := e.Put(ctx, Instance(service, id), l.at(host, portBackend)); err != nil {
			return nil, err
		}
	}
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all Crashes
	for range runs {
		one, err := l.crash(ctx, c, s, d, service, stays, goes)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// crash is one run.
func (l *Lab) crash(ctx context.Context, c *Client, s *Server, d Death, service string, stays, goes byte) (Crashed, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*startTimeout)
	defer cancel()
	name := service + "." + Zone
	var p *program.Process
	var err error
	if d.holder == nil {
		p, err = l.StartBackend(ctx, goes)
	} else {
		p, err = l.Start("register", d.holder(l, service, goes)...)
	}
	if err != nil {
		return Crashed{}, err
	}
	if _, err := c.Await(ctx, name, dns.TypeA, Has(l.Addr(stays).String(), l.Addr(goes).String())); err != nil {
		return Crashed{}, err
	}
	select { // any moment of the interval between two checks
	case <-time.After(rand.N(2 * time.Second)):
	case <-ctx.Done():
		return Crashed{}, ctx.Err()
	}
	killed := time.Now()
	if err := d.kill(p); err != nil {
		return Crashed{}, err
	}
	last := killed
	_, err = c.Await(ctx, name, dns.TypeA, func(m *dns.Msg) error {
		if err := Has(l.Addr(stays).String())(m); err != nil {
			last = time.Now()
			return err
		}
		return nil
	})
	if err != nil && strings.Contains(err.Error(), l.Addr(goes).String()) {
		return Crashed{}, fmt.Errorf("the killed instance stays: %w", err)
	}
	if err != nil {
		return Crashed{}, err
	}
	told, err := d.told(ctx, s, service, killed)
	return Crashed{last.Sub(killed), told}, err
}

// kill ends what is to die: the process that serves, which is the holder's
// child if there is a holder.
func (d *Death) kill(p *program.Process) error {
	if d.holder == nil || d.orphan {
		return Kill(p)
	}
	var all []string
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.PID()))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err == nil {
			all = append(all, strings.Fields(string(text))...)
		}
	}
	if len(all) != 1 {
		return fmt.Errorf("%s has the children %q: want one", p.Name(), all)
	}
	pid, err := strconv.Atoi(all[0])
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
