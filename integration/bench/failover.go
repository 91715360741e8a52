package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// failoverHosts are the hosts of the instances, of which the first fails.
var failoverHosts = []byte{100, 101, 102}

// failoverHost is where the proxies listen that are told where.
const failoverHost = 90

const (
	usualDelay     = 10 * time.Millisecond // of an instance's answers, so that some are always under way
	slowDelay      = 2 * time.Second
	drainFor       = 2 * time.Second // from draining an instance to its end
	failoverBefore = 2 * time.Second // of load before the fault, and up to one interval more
	clientPatience = 5 * time.Second
)

// failoverFault is one way in which an instance fails.
type failoverFault struct {
	name string
	none bool // no request need fail
	do   func(ctx context.Context, p *failer, f *failing, first *program.Process) error
}

var failoverFaults = []failoverFault{
	{"kill -9", true, func(_ context.Context, _ *failer, _ *failing, first *program.Process) error {
		return fault.Kill(first)
	}},
	{"hang (SIGSTOP)", false, func(_ context.Context, _ *failer, _ *failing, first *program.Process) error {
		return first.Signal(syscall.SIGSTOP)
	}},
	{"500 for everything", true, func(ctx context.Context, _ *failer, f *failing, _ *program.Process) error {
		return f.lab.Behave(ctx, f.instances[0], fault.Behaviour{Status: 500, Delay: usualDelay})
	}},
	{"2 s slower", false, func(ctx context.Context, _ *failer, f *failing, _ *program.Process) error {
		return f.lab.Behave(ctx, f.instances[0], fault.Behaviour{Delay: slowDelay})
	}},
	{"drain, then kill -9", true, func(ctx context.Context, p *failer, f *failing, first *program.Process) error {
		if err := p.drain(ctx, f); err != nil {
			return err
		}
		select {
		case <-time.After(drainFor):
			return fault.Kill(first)
		case <-ctx.Done():
			return ctx.Err()
		}
	}},
}

// failoverRequest is the n-th request.
func failoverRequest(int) string { return "GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n" }

// failoverOptions are the flags of the benchmark failover.
type failoverOptions struct {
	muster, only string
	rounds, rate int
	after, try   time.Duration
	choice       string
}

// slowAnswer is what an answer may take without a client's noticing.
const slowAnswer = 250 * time.Millisecond

// failoverResult is what all rounds of one proxy with one fault came to.
type failoverResult struct {
	sent, failed, again, slow int           // after the fault
	last                      time.Duration // from the fault until the last failure was known
	before, after             fault.Times
	why                       map[string]int // failures by their reason
}

func failoverFlags(args []string, out io.Writer) (o failoverOptions, err error) {
	flags, muster := faultFlags("failover", out)
	flags.IntVar(&o.rounds, "rounds", 3, "`number` of turns of each proxy with each fault")
	flags.IntVar(&o.rate, "rate", 1000, "requests a second")
	flags.DurationVar(&o.after, "after", 7*time.Second, "`time` of load after the fault")
	flags.DurationVar(&o.try, "try", 0, "limit of one try's `time` in all proxies; 0: none but that of all tries, 30 s")
	flags.StringVar(&o.choice, "choice", failoverChoices[0], "`policy` of all proxies: round-robin or least-loaded")
	flags.StringVar(&o.only, "only", "", "only the faults whose name has this `text`")
	err = parse(flags, args)
	o.muster = *muster
	switch {
	case err != nil:
	case o.rounds < 1 || o.rate < 1 || o.after < drainFor || o.try < 0:
		err = fmt.Errorf("rounds and rate must be above 0, after %s or more, try not negative", drainFor)
	case !slices.Contains(failoverChoices, o.choice):
		err = fmt.Errorf("-choice %q: want one of %q", o.choice, failoverChoices)
	}
	return o, err
}

// runFailover measures what clients notice of an instance that fails behind a
// proxy; see the package's comment.
func runFailover(ctx context.Context, args []string, out io.Writer) error {
	o, err := failoverFlags(args, out)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d requests/s, three instances that take %s, %s; checks each %s, %s after a failure, fall %d; limit of a try %s; %d rounds; a request fails after %s\n",
		o.rate, usualDelay, o.choice, checkInterval, checkFast, checkFall, o.try, o.rounds, clientPatience)
	var errs []error
	for k := range failoverFaults {
		kind := &failoverFaults[k]
		if !strings.Contains(kind.name, o.only) {
			continue
		}
		results, err := failoverRounds(ctx, o, kind, out)
		if err != nil {
			return err
		}
		printFailover(out, kind, results)
		if own := &results[0]; kind.none && own.failed > 0 {
			errs = append(errs, fmt.Errorf("%s: %d requests through muster failed, want none", kind.name, own.failed))
		}
	}
	return errors.Join(errs...)
}

// failoverRounds gives each proxy its turns with one fault, and returns what
// they came to in the order of failers.
func failoverRounds(ctx context.Context, o failoverOptions, kind *failoverFault, out io.Writer) ([]failoverResult, error) {
	results := make([]failoverResult, len(failers))
	for round := range o.rounds {
		for p := range failers {
			path, err := failers[p].find()
			if err != nil {
				if round == 0 {
					fmt.Fprintln(out, err)
				}
				continue
			}
			if err := failoverTurn(ctx, o, path, &failers[p], kind, &results[p]); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", kind.name, failers[p].name, err)
			}
		}
	}
	return results, nil
}

func printFailover(out io.Writer, kind *failoverFault, results []failoverResult) {
	fmt.Fprintf(out, "\n%s\n", kind.name)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "proxy\tsent after it\tfailed\tlast failure known after\tasked again by the client\tp99 before\tp99 after\tabove %s\tslowest\tfailures\n", slowAnswer)
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	for p := range results {
		r := &results[p]
		if r.sent == 0 {
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%d\t%s\t%s\t%d\t%s\t%v\n", failers[p].name, r.sent, r.failed, ms(r.last), r.again,
			ms(r.before.Quantile(0.99)), ms(r.after.Quantile(0.99)), r.slow, ms(r.after.Max()), r.why)
	}
	w.Flush()
}

// failoverTurn is one fault behind one proxy, in a lab of its own.
func failoverTurn(ctx context.Context, o failoverOptions, path string, p *failer, kind *failoverFault, r *failoverResult) error {
	return inLab(o.muster, func(l *fault.Lab) error {
		f := &failing{lab: l, path: path, addr: fmt.Sprintf("%s:80", l.Addr(failoverHost)), try: o.try, choice: o.choice, instances: failoverHosts}
		first, err := f.startInstances(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = first.Signal(syscall.SIGKILL) }() // one that is stopped would not end by itself
		if err := p.start(ctx, f); err != nil {
			return err
		}
		loading, stop := context.WithCancel(ctx)
		defer stop()
		load := &steady{addr: f.addr, request: failoverRequest, rate: o.rate, patience: clientPatience}
		visits := make(chan []visit, 1)
		go func() { visits <- load.run(loading) }()
		// Any moment of the interval between two checks.
		at, err := failAt(ctx, failoverBefore+rand.N(checkInterval), func() error { return kind.do(ctx, p, f, first) })
		if err == nil {
			_, err = failAt(ctx, o.after-time.Since(at), func() error { return f.proc.Ended() })
		}
		stop()
		r.add(<-visits, at)
		return err
	})
}

// failAt does something after a time, and says when it began.
func failAt(ctx context.Context, after time.Duration, do func() error) (time.Time, error) {
	select {
	case <-time.After(after):
		at := time.Now()
		return at, do()
	case <-ctx.Done():
		return time.Now(), ctx.Err()
	}
}

// startInstances starts them, and returns the first.
func (f *failing) startInstances(ctx context.Context) (first *program.Process, err error) {
	for _, host := range slices.Backward(f.instances) {
		if first, err = f.lab.StartBackend(ctx, host); err != nil {
			return nil, err
		}
		if err := f.lab.Behave(ctx, host, fault.Behaviour{Delay: usualDelay}); err != nil {
			return nil, err
		}
	}
	return first, nil
}

// add counts the visits of a turn whose fault was at a time.
func (r *failoverResult) add(visits []visit, at time.Time) {
	if r.why == nil {
		r.why = map[string]int{}
	}
	for i := range visits {
		v := &visits[i]
		if v.ended.Before(at) {
			r.before = append(r.before, v.took())
			if v.err != nil {
				r.why["before the fault: "+v.err.Error()]++
				r.failed++
			}
			continue
		}
		r.sent++
		r.after = append(r.after, v.took())
		if v.again {
			r.again++
		}
		if v.took() > slowAnswer {
			r.slow++
		}
		if v.err != nil {
			r.failed++
			r.last = max(r.last, v.ended.Sub(at))
			r.why[reasonOf(v.err)]++
		}
	}
}

// reasonOf is an error without what differs from connection to connection.
func reasonOf(err error) string {
	text := err.Error()
	return strings.TrimSpace(text[strings.LastIndexByte(text, ':')+1:])
}
