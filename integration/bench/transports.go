package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// transport is a way to ask over kept connections.
type transport struct {
	name, title string
	servers     []server
	window      int // questions outstanding on each connection
	run         func(ctx context.Context, l *lab, t *transport, port int, seconds float64) ([]byte, error)
	// The limit: Muster's CPU an answer to a peer's.
	peer  string
	limit float64
}

// keptConns is how many connections are kept.
const keptConns = 50

func transports() []transport {
	tcp := []server{
		{name: own, answers: true, argv: musterStreams},
		{name: "knot", program: "knotd", mend: "apt-get install knot", answers: true, argv: knotCommand},
		{name: "nsd", program: "nsd", mend: "apt-get install nsd", answers: true, argv: nsdCommand},
		{name: "gdnsd", program: "gdnsd", mend: "apt-get install gdnsd", answers: true, argv: gdnsdCommand},
		{name: "bind", program: "named", mend: "apt-get install bind9", answers: true, argv: namedCommand},
	}
	coredns := server{name: "coredns", program: os.Getenv("COREDNS"), mend: "name its binary in COREDNS", answers: true, argv: corednsStreams}
	dot := []server{
		tcp[0],
		{name: "nsd", program: "nsd", mend: "apt-get install nsd", answers: true, argv: nsdStreams},
		{name: "bind", program: "named", mend: "apt-get install bind9", answers: true, argv: namedStreams},
		coredns,
	}
	dot16 := []server{tcp[0], dot[2], coredns} // NSD 4.6 ends a connection that asks as many
	doh := dot16
	return []transport{
		{"tcp", "TCP, one question at a time", tcp, 1, streamLoad, "knot", 1.3},
		{"tcp16", "TCP, 16 questions at a time", tcp, 16, streamLoad, "knot", 1.3},
		{"dot", "TLS, one question at a time", dot, 1, streamLoad, "", 0},
		{"dot16", "TLS, 16 questions at a time", dot16, 16, streamLoad, "", 0},
		{"doh", "HTTPS, 10 streams at a time, POST", doh, 10, httpsLoad, "coredns", 0.5},
	}
}

// runTransports measures the cost of an answer over kept connections.
func runTransports(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("transports", out)
	o := dnsOptions{seconds: 2, data: dataset{services: 1000, instances: 5}, only: []string{"muster"}}
	flags.IntVar(&o.rounds, "rounds", 5, "interleaved `rounds`; the median counts")
	only := flags.String("only", "", "only the `transport`: tcp, tcp16, dot, dot16 or doh")
	if err := parse(flags, args); err != nil {
		return err
	}
	if o.rounds < 1 {
		return fmt.Errorf("-rounds %d: must be above 0", o.rounds)
	}
	o.muster = *muster
	l, err := newLab(ctx, o)
	if err != nil {
		return err
	}
	defer l.close()
	if _, err := fault.Certify(l.dir); err != nil {
		return err
	}
	fmt.Fprintf(out, "1000 services x 5 instances, %d kept connections, %d rounds of %g s; ratios are to Muster in the same round, median (least-greatest)\n", keptConns, o.rounds, o.seconds)
	var missed error
	for _, t := range transports() {
		if *only == "" || *only == t.name {
			missed = errors.Join(missed, l.transport(ctx, &t, o, out))
		}
	}
	return missed
}

// transport measures one transport and ends its servers.
func (l *lab) transport(ctx context.Context, t *transport, o dnsOptions, out io.Writer) error {
	before := len(l.started)
	defer func() {
		for _, p := range l.started[before:] {
			p.Stop()
		}
		l.started = l.started[:before]
	}()
	var all []*contender
	for _, s := range t.servers {
		if !l.have(s, out) {
			continue
		}
		c, err := l.contend(ctx, s, t.name)
		switch {
		case err == nil:
			all = append(all, c)
		case s.name == own:
			return err
		default:
			leftOut(out, t, s.name, err)
		}
	}
	for range o.rounds {
		var err error
		if all, err = l.askEach(ctx, all, t, o, out); err != nil {
			return err
		}
	}
	printTransport(out, t, all)
	for _, c := range all {
		if ratio := 1 / mid(c.samples[0], func(s *sample) float64 { return s.cpuRatio }); c.name == t.peer && ratio > t.limit {
			return fmt.Errorf("%s: CPU %.2f of %s's: more than %g", t.title, ratio, t.peer, t.limit)
		}
	}
	return nil
}

// own is the server that all others are beside.
const own = "muster"

// leftOut tells that a peer is missing in a table, and why: the others are measured.
func leftOut(out io.Writer, t *transport, name string, err error) {
	fmt.Fprintf(out, "%s: %s is left out: %v\n", t.title, name, err)
}

// askEach measures each server once, and returns those that can be measured on. It fails
// when Muster cannot.
func (l *lab) askEach(ctx context.Context, all []*contender, t *transport, o dnsOptions, out io.Writer) ([]*contender, error) {
	var cpu float64
	left := make([]*contender, 0, len(all))
	for _, c := range all {
		s, err := l.stream(ctx, c, t, o)
		switch {
		case err != nil && (c.name == own || ctx.Err() != nil):
			return nil, err
		case err != nil:
			leftOut(out, t, c.name, err)
			continue
		case c.name == own:
			cpu = s.cpu
		}
		s.cpuRatio = s.cpu / cpu
		c.samples[0] = append(c.samples[0], s)
		left = append(left, c)
	}
	return left, nil
}

// contend starts a server, with a directory for this transport.
func (l *lab) contend(ctx context.Context, s server, transport string) (*contender, error) {
	var err error
	if l.dot, err = program.FreePort(); err != nil {
		return nil, err
	}
	if l.doh, err = program.FreePort(); err != nil {
		return nil, err
	}
	name := s.name
	s.name = transport + "-" + name
	c, err := l.startServer(ctx, s)
	if err != nil {
		return nil, err
	}
	c.name, c.dot, c.doh = name, l.dot, l.doh
	return c, nil
}

// stream measures a server once.
func (l *lab) stream(ctx context.Context, c *contender, t *transport, o dnsOptions) (sample, error) {
	port := c.port
	switch {
	case t.secure():
		port = c.dot
	case t.name == "doh":
		port = c.doh
	}
	s, err := c.measure(func() ([]byte, error) { return t.run(ctx, l, t, port, o.seconds) })
	if err == nil && s.wrong() > 0 {
		err = fmt.Errorf("%s: of %d answers %d were wrong", c.name, s.Received, s.wrong())
	}
	return s, err
}

// secure reports whether the transport is DNS over TLS.
func (t *transport) secure() bool { return strings.HasPrefix(t.name, "dot") }

func printTransport(out io.Writer, t *transport, all []*contender) {
	fmt.Fprintf(out, "\n%s\n", t.title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "server\tCPU us/answer\tto Muster's\tanswers/s\tp50, p99 us")
	for _, c := range all {
		s := c.samples[0]
		times := "not counted"
		if p50 := mid(s, func(s *sample) float64 { return s.P50 }); p50 > 0 {
			times = fmt.Sprintf("%.0f, %.0f", p50, mid(s, func(s *sample) float64 { return s.P99 }))
		}
		fmt.Fprintf(w, "%s\t%.2f\t%s\t%.0f\t%s\n", c.name, mid(s, func(s *sample) float64 { return s.cpu }), spread(s, func(s *sample) float64 { return s.cpuRatio }),
			mid(s, (*sample).rate), times)
	}
	w.Flush()
}

// streamLoad asks over TCP or TLS, from a process of its own on the load's core.
func streamLoad(ctx context.Context, l *lab, t *transport, port int, seconds float64) ([]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	roots := ""
	if t.secure() {
		roots = filepath.Join(l.dir, fault.CertFile)
	}
	return command(ctx, loadCore, self, streamLoadVerb, strconv.Itoa(port), l.queries[0], strconv.Itoa(t.window), strconv.FormatFloat(seconds, 'f', -1, 64), roots)
}

// httpsLoad asks one question over and over with h2load.
func httpsLoad(ctx context.Context, l *lab, t *transport, port int, seconds float64) ([]byte, error) {
	path, err := program.Find("h2load")
	if err != nil {
		return nil, fmt.Errorf("%w (apt-get install nghttp2-client)", err)
	}
	body := filepath.Join(l.dir, "question")
	if err := os.WriteFile(body, query(l.data.service(0)+"."+zoneName, typeA), 0o600); err != nil {
		return nil, err
	}
	log := filepath.Join(l.dir, "requests")
	if err := os.Remove(log); err != nil && !errors.Is(err, os.ErrNotExist) { // h2load appends
		return nil, err
	}
	text, err := command(ctx, loadCore, path, "--duration", strconv.FormatFloat(seconds, 'f', -1, 64), "--warm-up-time", "0",
		"-c", strconv.Itoa(keptConns), "-m", strconv.Itoa(t.window), "-d", body, "-H", "content-type: application/dns-message", "--log-file", log,
		fmt.Sprintf("https://127.0.0.1:%d/dns-query", port))
	if err != nil {
		return nil, err
	}
	requests, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	return h2loadSample(string(text), string(requests), seconds)
}

// h2loadSample is what h2load printed, and logged of each request (when it began, its status
// and how long it took in microseconds), as the generators here print it.
func h2loadSample(text, requests string, seconds float64) ([]byte, error) {
	s := sample{ElapsedNS: int64(seconds * 1e9)}
	for line := range strings.Lines(text) {
		var n int64
		if _, err := fmt.Sscanf(line, "status codes: %d 2xx", &n); err == nil {
			s.Received, s.Noerror = n, n
		}
	}
	if s.Received == 0 {
		return nil, fmt.Errorf("h2load printed %q", text)
	}
	var times []float64
	for line := range strings.Lines(requests) {
		var began int64
		var status, took int
		if _, err := fmt.Sscan(line, &began, &status, &took); err != nil {
			return nil, fmt.Errorf("h2load logged %q: %w", line, err)
		}
		if status/100 == 2 {
			times = append(times, float64(took))
		}
	}
	if slices.Sort(times); len(times) > 0 {
		s.P50, s.P99 = times[len(times)/2], times[len(times)*99/100]
	}
	return json.Marshal(&s)
}
