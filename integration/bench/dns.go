package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/musterdns/muster/integration/program"
)

// The cores: one for the server, one for what asks it.
const (
	serverCore = 0
	loadCore   = 1
)

// sourcesDefault is how many ports questions come from, as those of a few balancers or
// forwarders that have many outstanding.
const sourcesDefault = 8

// dnsOptions are the flags of the benchmark dns.
type dnsOptions struct {
	rounds, outstanding int
	sources             int // ports that questions come from
	seconds             float64
	data                dataset
	muster              string
	only                []string // servers; nil for all
	rate                int      // questions a second, whatever is answered; 0: as many as are
}

// takesPart reports whether a server was asked for; the base always is.
func (o *dnsOptions) takesPart(name string) bool {
	return o.only == nil || name == servers[0].name || slices.Contains(o.only, name)
}

// kinds are the loads, by the name that the table shows.
var kinds = []struct {
	name, title string
	mixed       bool
}{
	{"a", "A, all addresses of a service", false},
	{"mixed", "mixed, one in five SRV", true},
}

// contender is one server that takes part.
type contender struct {
	server
	proc    *program.Process
	port    int
	dot     int // where it answers over TLS, and HTTPS, if it was told to
	doh     int
	rss     int64
	samples [][]sample // by kind, by round
}

// sample is one run of the generator against one server.
type sample struct {
	Sent, Received, Lost, Stray, Noerror, Servfail, Answers, Octets int64

	IdleNS    int64 `json:"idle_ns"`    // the generator had nothing to do
	ElapsedNS int64 `json:"elapsed_ns"` // from the first query to the last answer

	P50, P99 float64 // microseconds; over a stream of what is asked at once

	cpu       float64 // microseconds an answer
	cpuRatio  float64 // to the base's runs before and after
	rateRatio float64
}

// rate is answers a second.
func (s *sample) rate() float64 { return float64(s.Received) / (float64(s.ElapsedNS) / 1e9) }

// wrong counts what came back and is no answer to what was asked.
func (s *sample) wrong() int64 { return s.Received - s.Noerror + s.Stray }

func dnsFlags(args []string, out io.Writer) (dnsOptions, error) {
	var o dnsOptions
	f, muster := faultFlags("dns", out)
	f.IntVar(&o.rounds, "rounds", 5, "interleaved rounds; the median counts")
	f.Float64Var(&o.seconds, "seconds", 2, "seconds a run")
	f.IntVar(&o.outstanding, "outstanding", 512, "queries outstanding at any time")
	f.IntVar(&o.sources, "sources", sourcesDefault, "ports that they come from")
	f.IntVar(&o.data.services, "services", 1000, "services in the zone")
	f.IntVar(&o.data.instances, "instances", 5, "instances of each service")
	onlyFlag(f, &o.only, "server", servers, func(s server) string { return s.name })
	if err := parse(f, args); err != nil {
		return o, err
	}
	o.muster = *muster
	switch {
	case o.rounds < 1 || o.seconds <= 0 || o.data.services < 1 || o.data.instances < 1:
		return o, errors.New("rounds, seconds, services and instances must be above 0")
	case o.data.services > 100_000 || o.data.services*o.data.instances > 1<<24:
		return o, errors.New("at most 100,000 services, and 16,777,216 instances in all")
	case o.sources < 1 || o.sources > 512 || o.sources > o.outstanding:
		return o, errors.New("sources must be 1 to 512, and no more than there are queries outstanding")
	case runtime.NumCPU() <= loadCore:
		return o, fmt.Errorf("core %d is for the server and core %d for the load: this machine has %d", serverCore, loadCore, runtime.NumCPU())
	}
	return o, nil
}

// runDNS measures the cost of an answer; see the package's comment.
func runDNS(ctx context.Context, args []string, out io.Writer) error {
	o, err := dnsFlags(args, out)
	if err != nil {
		return err
	}
	l, err := newLab(ctx, o)
	if err != nil {
		return err
	}
	defer l.close()
	all, err := l.startServers(ctx, o, out)
	if err != nil {
		return err
	}
	for round := range o.rounds {
		for k := range kinds {
			fmt.Fprintf(out, "round %d of %d, %s\n", round+1, o.rounds, kinds[k].name)
			if err := l.round(ctx, all, k, o); err != nil {
				return err
			}
		}
	}
	for _, c := range all {
		if c.rss, err = rss(c.proc); err != nil {
			return err
		}
	}
	printDNS(out, all, o)
	return l.printHeap(ctx, out)
}

// startServers starts what takes part, the base first, and waits until each
// answers. It says who is missing.
func (l *lab) startServers(ctx context.Context, o dnsOptions, out io.Writer) ([]*contender, error) {
	var all []*contender
	for _, s := range servers {
		if !o.takesPart(s.name) || !l.have(s, out) {
			continue
		}
		c, err := l.startServer(ctx, s)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// have reports whether a server's program is there, and says how to get it if not.
func (l *lab) have(s server, out io.Writer) bool {
	switch {
	case s.program != "":
		p, err := program.Find(s.program)
		if err != nil {
			fmt.Fprintf(out, "%s does not take part: %v (%s)\n", s.name, err, s.mend)
			return false
		}
		l.programs[s.program] = p
	case s.mend != "":
		fmt.Fprintf(out, "%s does not take part: %s\n", s.name, s.mend)
		return false
	}
	return true
}

func (l *lab) startServer(ctx context.Context, s server) (*contender, error) {
	c := &contender{server: s, samples: make([][]sample, len(kinds))}
	dir := filepath.Join(l.dir, s.name)
	if err := os.Mkdir(dir, 0o750); err != nil {
		return nil, err
	}
	var err error
	if c.port, err = program.FreePort(); err != nil {
		return nil, err
	}
	argv, err := s.argv(l, dir, c.port)
	if err != nil {
		return nil, fmt.Errorf("configuring %s: %w", s.name, err)
	}
	if c.proc, err = start(serverCore, s.name, argv...); err != nil {
		return nil, err
	}
	l.started = append(l.started, c.proc)
	last := query(l.data.service(l.data.services-1)+"."+zoneName, typeA)
	return c, ready(ctx, c.proc, func() error { return ask(ctx, c.port, last, s.answers) })
}

// round measures every server once with load k, each between two runs of the
// base, which is the first.
func (l *lab) round(ctx context.Context, all []*contender, k int, o dnsOptions) error {
	before, err := l.measure(ctx, all[0], k, o)
	if err != nil {
		return err
	}
	for _, c := range all[1:] {
		s, err := l.measure(ctx, c, k, o)
		if err != nil {
			return err
		}
		after, err := l.measure(ctx, all[0], k, o)
		if err != nil {
			return err
		}
		s.cpuRatio = s.cpu / ((before.cpu + after.cpu) / 2)
		s.rateRatio = s.rate() / ((before.rate() + after.rate()) / 2)
		c.samples[k] = append(c.samples[k], s)
		all[0].samples[k] = append(all[0].samples[k], before)
		before = after
	}
	before.cpuRatio, before.rateRatio = 1, 1
	all[0].samples[k] = append(all[0].samples[k], before)
	return nil
}

// measure runs the generator once.
func (l *lab) measure(ctx context.Context, c *contender, k int, o dnsOptions) (sample, error) {
	return c.measure(func() ([]byte, error) {
		return command(ctx, loadCore, l.load, strconv.Itoa(c.port), l.queries[k],
			strconv.Itoa(o.outstanding), strconv.FormatFloat(o.seconds, 'f', -1, 64), strconv.Itoa(o.rate), strconv.Itoa(o.sources))
	})
}

// measure has a load run, which prints a sample, and counts the CPU that it takes.
func (c *contender) measure(load func() ([]byte, error)) (sample, error) {
	s := sample{cpuRatio: 1, rateRatio: 1}
	from, err := cpu(c.proc)
	if err != nil {
		return s, err
	}
	text, err := load()
	if err != nil {
		return s, fmt.Errorf("load on %s: %w", c.name, err)
	}
	to, err := cpu(c.proc)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("load on %s printed %q: %w", c.name, text, err)
	}
	if s.Received == 0 {
		return s, fmt.Errorf("%s answered none of %d queries", c.name, s.Sent)
	}
	s.cpu = float64((to - from).Microseconds()) / float64(s.Received)
	return s, nil
}
