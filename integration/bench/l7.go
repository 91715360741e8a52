package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// l7Options are the flags of the benchmark l7.
type l7Options struct {
	rounds, requests, conns, rate int
	seconds                       float64
	muster                        string
	only                          []string // proxies; nil for all that are installed
}

// l7Sample is one turn of one proxy.
type l7Sample struct {
	cpu, toBase float64 // microseconds a request, and the ratio to the base's in the same round
	p50, p99    float64 // microseconds, at the fixed rate
}

// l7Contender is one proxy that takes part.
type l7Contender struct {
	peerProxy
	addr    string
	secure  string // where it speaks TLS; Caddy does not
	proc    *program.Process
	samples [][]l7Sample // by kind, by round
}

// l7Kind is one kind of exchange.
type l7Kind struct {
	title string
	request,
	body string // of the request, with its head; of the response
}

// l7Kinds are what is asked for: a small exchange, one with a body in both
// directions, and a large response.
var l7Kinds = []l7Kind{
	{"small keep-alive request, 27 bytes back", "GET /api/users/17?x=1 HTTP/1.1\r\n" + l7Fields + "\r\n", "hello from a small instance\n"},
	{"POST of 1 KiB, 1 KiB back", "POST /api/users HTTP/1.1\r\n" + l7Fields + "Content-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024), strings.Repeat("y", 1024)},
	{"1 MiB back", "GET /large HTTP/1.1\r\n" + l7Fields + "\r\n", strings.Repeat("z", 1<<20)},
}

// l7Fields are those of a request as a program sends it.
const l7Fields = "Host: shop.example.com\r\nUser-Agent: bench/1\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"

func l7Flags(args []string, out io.Writer) (l7Options, error) {
	var o l7Options
	f, muster := faultFlags("l7", out)
	f.IntVar(&o.rounds, "rounds", 7, "interleaved rounds; the median counts")
	f.IntVar(&o.requests, "requests", 20_000, "requests a turn; a 50th of it for large responses")
	f.IntVar(&o.conns, "conns", 16, "connections that are kept open")
	f.IntVar(&o.rate, "rate", 2000, "requests a second while latencies are measured")
	f.Float64Var(&o.seconds, "seconds", 2, "seconds a turn at the fixed rate")
	onlyFlag(f, &o.only, "proxy", httpProxies, func(p peerProxy) string { return p.name })
	if err := parse(f, args); err != nil {
		return o, err
	}
	o.muster = *muster
	if o.rounds < 1 || o.requests < 50 || o.conns < 1 || o.rate < 1 || o.seconds <= 0 {
		return o, errors.New("rounds, conns, rate and seconds must be above 0, and requests 50 or more")
	}
	return o, nil
}

// runL7 measures the cost of an HTTP exchange; see the package's comment.
func runL7(ctx context.Context, args []string, out io.Writer) error {
	o, err := l7Flags(args, out)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	secure, err := l7Certify(dir)
	if err != nil {
		return err
	}
	instance, err := startInstance(answerHTTP)
	if err != nil {
		return err
	}
	defer instance.stop()
	up := func(addr string) error { return exchangeClosed(ctx, addr, &l7Kinds[0], 1, 1) }
	all, stop, err := startProxies(ctx, httpProxies, up, o, dir, instance.addr(), out)
	defer stop()
	if err != nil {
		return err
	}
	for k := range l7Kinds {
		for round := range o.rounds + 1 {
			if err := l7Round(ctx, all, k, o, round > 0); err != nil { // the first warms up
				return err
			}
		}
	}
	printL7(out, all, o)
	return l7Memory(ctx, all, secure, out)
}

// l7Certify writes bothFile, and returns what a client of HTTP/1.1 over TLS needs to know.
func l7Certify(dir string) (*tls.Config, error) {
	client, err := fault.Certify(dir)
	if err != nil {
		return nil, err
	}
	cert, err1 := os.ReadFile(filepath.Join(dir, fault.CertFile))
	key, err2 := os.ReadFile(filepath.Join(dir, fault.KeyFile))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	client.NextProtos = []string{"http/1.1"}
	return client, write(dir, map[string]string{bothFile: string(cert) + string(key)})
}

// l7Settle is how long idle connections of HTTP have to settle: after a second of quiet
// Muster parks one.
const l7Settle = 5 * time.Second

// l7IdleTLS is how many connections over TLS idle: handshakes take their time.
const l7IdleTLS = 3_000

// l7Memory measures what connections cost that have asked once.
func l7Memory(ctx context.Context, all []*l7Contender, secure *tls.Config, out io.Writer) error {
	fmt.Fprintf(out, "\nidle connections, opened as fast as they are answered, %d in cleartext and %d over TLS: memory of each %s later\n", l4Idle, l7IdleTLS, l7Settle)
	for _, c := range all {
		bare, err := idleMemory(ctx, c.proc, l4Idle, l7Settle, func() (*asker, error) {
			a, err := dialAsker(ctx, c.addr, &l7Kinds[0])
			if err != nil {
				return nil, err
			}
			return a, a.ask()
		})
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Fprintf(out, "%s: %.0f bytes", c.name, bare)
		if c.name != "caddy" {
			each, err := idleMemory(ctx, c.proc, l7IdleTLS, l7Settle, func() (*asker, error) {
				a, err := dialAsker(ctx, c.secure, &l7Kinds[0])
				if err != nil {
					return nil, err
				}
				over := tls.Client(a.c, secure)
				a.c = over
				a.r.Reset(over)
				return a, a.ask()
			})
			if err != nil {
				return fmt.Errorf("%s over TLS: %w", c.name, err)
			}
			fmt.Fprintf(out, ", %.0f bytes over TLS", each)
		}
		fmt.Fprintln(out)
	}
	return nil
}

// l7Round gives each proxy its turn.
func l7Round(ctx context.Context, all []*l7Contender, k int, o l7Options, counts bool) error {
	kind := &l7Kinds[k]
	n := o.requests
	if len(kind.body) > 1<<16 {
		n = max(n/50, 1)
	}
	base := 0.0
	for _, c := range all {
		before, err := cpu(c.proc)
		if err != nil {
			return err
		}
		if err := exchangeClosed(ctx, c.addr, kind, o.conns, n); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		after, err := cpu(c.proc)
		if err != nil {
			return err
		}
		s := l7Sample{cpu: float64((after - before).Nanoseconds()) / float64(n) / 1000}
		if k == 0 {
			latencies, err := exchangeAtRate(ctx, c.addr, kind, o)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			s.p50, s.p99 = quantile(latencies, 0.5), quantile(latencies, 0.99)
		}
		if base == 0 {
			base = s.cpu
		}
		s.toBase = s.cpu / base
		if counts {
			c.samples[k] = append(c.samples[k], s)
		}
	}
	return nil
}

// quantile of durations that are sorted, microseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	return float64(sorted[int(q*float64(len(sorted)-1))].Nanoseconds()) / 1000
}

// printL7 prints a table for each kind of exchange.
func printL7(out io.Writer, all []*l7Contender, o l7Options) {
	fmt.Fprintf(out, "\n%d connections, %d rounds of %d requests; proxies on core %d; ratios are to %s in the same round; medians (least-greatest)\n",
		o.conns, o.rounds, o.requests, serverCore, all[0].name)
	for k := range l7Kinds {
		fmt.Fprintf(out, "\n%s\n", l7Kinds[k].title)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprint(w, "proxy\tCPU us/request\tCPU ratio")
		if k == 0 {
			fmt.Fprintf(w, "\tp50 us at %d/s\tp99 us", o.rate)
		}
		fmt.Fprintln(w)
		for _, c := range all {
			of := func(f func(*l7Sample) float64) []float64 {
				list := make([]float64, len(c.samples[k]))
				for i := range list {
					list[i] = f(&c.samples[k][i])
				}
				return list
			}
			cost, ratio := of(func(s *l7Sample) float64 { return s.cpu }), of(func(s *l7Sample) float64 { return s.toBase })
			fmt.Fprintf(w, "%s\t%.1f (%.1f-%.1f)\t%.2f (%.2f-%.2f)", c.name, median(cost), slices.Min(cost), slices.Max(cost), median(ratio), slices.Min(ratio), slices.Max(ratio))
			if k == 0 {
				fmt.Fprintf(w, "\t%.0f\t%.0f", median(of(func(s *l7Sample) float64 { return s.p50 })), median(of(func(s *l7Sample) float64 { return s.p99 })))
			}
			fmt.Fprintln(w)
		}
		w.Flush()
	}
}

// startProxies starts those of the proxies that are asked for, or else
// installed, before an instance, and waits until up is nil. stop ends what was
// started, whatever err says.
func startProxies(ctx context.Context, proxies []peerProxy, up func(addr string) error, o l7Options, dir, instance string, out io.Writer) (all []*l7Contender, stop func(), err error) {
	var started []*program.Process
	stop = func() {
		for _, p := range slices.Backward(started) {
			p.Stop()
		}
	}
	for _, p := range proxies {
		if o.only != nil && !slices.Contains(o.only, p.name) {
			continue
		}
		c := &l7Contender{peerProxy: p, samples: make([][]l7Sample, len(l7Kinds))}
		path := o.muster
		if p.program != "" {
			if path, err = program.Find(p.program); err != nil {
				if o.only != nil {
					return all, stop, fmt.Errorf("%w (%s)", err, p.mend)
				}
				fmt.Fprintf(out, "%s takes no part: %s\n", p.name, p.mend)
				continue
			}
		} else if path == "" {
			return all, stop, errNoMuster
		}
		for _, addr := range []*string{&c.addr, &c.secure} {
			port, err := program.FreePort()
			if err != nil {
				return all, stop, err
			}
			*addr = fmt.Sprintf("127.0.0.1:%d", port)
		}
		home := filepath.Join(dir, p.name)
		if err := os.Mkdir(home, 0o750); err != nil {
			return all, stop, err
		}
		more, err := p.start(ctx, c, path, home, instance)
		started = append(started, more...)
		if err != nil {
			return all, stop, fmt.Errorf("%s: %w", p.name, err)
		}
		if err := ready(ctx, c.proc, func() error { return up(c.addr) }); err != nil {
			return all, stop, fmt.Errorf("%s: %w", p.name, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, stop, errors.New("no proxy takes part")
	}
	return all, stop, nil
}
