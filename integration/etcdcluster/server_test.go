package etcdcluster_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/registry/registrytest"
)

const (
	serviceName   = "hist"
	serviceKeys   = fault.Keys + "instances/" + serviceName + "/"
	servicePolicy = "services: [{name: " + serviceName + ", policy: all}]\n"
)

// server is a muster that reaches each member over a network of its own.
type server struct {
	*fault.Server

	t        *testing.T
	name     string
	networks [members]*registrytest.Proxy
}

// newServer starts a muster on the cluster.
func newServer(t *testing.T, c *cluster, name string) *server {
	t.Helper()
	s := &server{t: t, name: name}
	var urls []string
	for i, m := range c.members {
		s.networks[i] = registrytest.NewProxy(t, strings.TrimPrefix(m.client, "http://"))
		urls = append(urls, "http://"+s.networks[i].Addr())
	}
	s.run(urls)
	return s
}

// run starts the muster on URLs of members.
func (s *server) run(urls []string) {
	s.t.Helper()
	l := newLab(s.t)
	var err error
	s.Server, err = l.Run(s.t.Context(), fault.Settings{Etcd: strings.Join(urls, ","), More: servicePolicy})
	must(s.t, err)
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("%s:\n%s", s.name, s.LogTail())
		}
	})
}

// each does something to the network to every member.
func (s *server) each(do func(*registrytest.Proxy)) {
	for _, n := range s.networks {
		do(n)
	}
}

// count is a counter of the registry: rollbacks, lists.
func (s *server) count(what string) float64 {
	s.t.Helper()
	n, err := s.Metric(s.t.Context(), "muster_registry_"+what+`_total{zone="`+fault.Zone+`"}`)
	must(s.t, err)
	return n
}

// ask asks a question. A set is the addresses of an answer in order, with spaces.
func ask(c *fault.Client) (set string, err error) {
	m, err := c.Ask(serviceName+"."+fault.Zone, dns.TypeA)
	if err != nil {
		return "", err
	}
	if m.Rcode != dns.RcodeSuccess {
		return "", errors.New(dns.RcodeToString[m.Rcode])
	}
	return strings.Join(fault.Addresses(m), " "), nil
}

// answer is what came of one question.
type answer struct {
	set  string
	err  error
	at   time.Time // when it was asked
	took time.Duration
}

// asker asks a server one question after another.
type asker struct {
	server *server
	client *fault.Client
	ended  chan struct{}
	asking sync.WaitGroup

	answers []answer // the goroutine's until it has ended
}

// askPause is how long after an answer the next question comes.
const askPause = 2 * time.Millisecond

// newAsker starts to ask. Stop must be called, and then the test may read the answers.
func newAsker(t *testing.T, s *server) *asker {
	t.Helper()
	client, err := fault.Dial(t.Context(), s.DNS)
	must(t, err)
	a := &asker{server: s, client: client, ended: make(chan struct{})}
	a.asking.Go(a.run)
	t.Cleanup(a.stop)
	return a
}

func (a *asker) run() {
	pause := time.NewTicker(askPause)
	defer pause.Stop()
	for {
		at := time.Now()
		set, err := ask(a.client)
		a.answers = append(a.answers, answer{set: set, err: err, at: at, took: time.Since(at)})
		select {
		case <-a.ended:
			return
		case <-pause.C:
		}
	}
}

// stop ends the asking after the question that is under way.
func (a *asker) stop() {
	select {
	case <-a.ended:
		return
	default:
	}
	close(a.ended)
	a.asking.Wait()
	a.client.Close()
}

// check holds the answers against the states that the registry had: none is lost, each
// is a state, and none is a state from before that of the answer before. It returns
// the last answer's state.
func (a *asker) check(t *testing.T, states []state) {
	t.Helper()
	const enough = 100
	if len(a.answers) < enough {
		t.Errorf("%s: only %d answers", a.server.name, len(a.answers))
	}
	at, lost, seen := 0, 0, map[int64]bool{}
	var slowest time.Duration
	for n, got := range a.answers {
		slowest = max(slowest, got.took)
		if got.err != nil {
			lost++
			t.Errorf("%s, question %d at %s: %v", a.server.name, n, got.at.Format(time.StampMilli), got.err)
			continue
		}
		i := find(states[at:], got.set)
		if i < 0 {
			what := "was never a state"
			if before := find(states, got.set); before >= 0 {
				what = fmt.Sprintf("is of revision %d, after an answer of revision %d", states[before].revision, states[at].revision)
			}
			t.Fatalf("%s, answer %d at %s: %q %s", a.server.name, n, got.at.Format(time.StampMilli), got.set, what)
		}
		at += i
		seen[states[at].revision] = true
	}
	t.Logf("%s: %d questions, %d lost, the slowest %s; %d of %d states were seen, the last of revision %d",
		a.server.name, len(a.answers), lost, slowest.Round(10*time.Microsecond), len(seen), len(states), states[at].revision)
}
