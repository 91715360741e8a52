package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// What is asked in an attack; the first two kinds of all are those of the benchmark
// dns.
const (
	kindHit = iota
	_
	kindMiss     // a name that is not there and was never asked for
	kindSigned   // all addresses of a service, with DO
	kindUnsigned // a name that is not there and was never asked for, with DO: to be signed
)

// The limits: shares of the rate of hits, and what must be left in a flood.
const (
	missShare   = 0.8
	signedShare = 0.6
	floodShare  = 0.8
	plainShare  = 0.9
	calmShare   = 0.85 // the rate alone varies by a tenth
	floodTime   = 3    // seconds
	growthMax   = 20 << 20
)

// attack is a Muster that is attacked.
type attack struct {
	*lab
	c      *contender
	o      dnsOptions
	client *tls.Config
}

// runAttack measures what floods, slow clients and resets leave to those who ask as
// others do.
func runAttack(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("attack", out)
	rounds := flags.Int("rounds", 3, "interleaved `rounds` of each kind of question; the median counts")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *rounds < 1 {
		return fmt.Errorf("-rounds %d: must be above 0", *rounds)
	}
	a, err := newAttack(ctx, dnsOptions{
		rounds: *rounds, outstanding: 512, sources: sourcesDefault, seconds: 2, data: dataset{services: 1000, instances: 5}, muster: *muster, only: []string{"muster"},
	})
	if err != nil {
		return err
	}
	defer a.close()
	peak, signing, missed := a.kinds(ctx, out)
	if peak == 0 {
		return missed
	}
	for _, f := range []func() error{
		func() error { return a.slowClients(ctx, out) },
		func() error { return a.flood(ctx, out, peak) },
		func() error { return a.signingFlood(ctx, out, peak, signing) },
		func() error { return a.resets(ctx, out) },
	} {
		if ctx.Err() != nil {
			break
		}
		missed = errors.Join(missed, f())
	}
	return missed
}

func newAttack(ctx context.Context, o dnsOptions) (*attack, error) {
	l, err := newLab(ctx, o)
	if err != nil {
		return nil, err
	}
	a := &attack{lab: l, o: o}
	if err := a.start(ctx); err != nil {
		l.close()
		return nil, err
	}
	return a, nil
}

// start starts Muster with a signed zone, and DNS over TLS and HTTPS.
func (a *attack) start(ctx context.Context) (err error) {
	for _, do := range []struct {
		name  string
		query []byte
	}{
		{"miss", sized(query("x00000000."+zoneName, typeA))},
		{"signed", withDO(a.data.queries(false))},
		{"unsigned", withDO(sized(query("x00000000."+zoneName, typeA)))},
	} {
		name := filepath.Join(a.dir, "queries-"+do.name)
		if err := os.WriteFile(name, do.query, 0o600); err != nil {
			return err
		}
		a.queries = append(a.queries, name)
	}
	if a.client, err = fault.Certify(a.dir); err != nil {
		return err
	}
	keys := filepath.Join(a.dir, "keys")
	if err := os.Mkdir(keys, 0o700); err != nil {
		return err
	}
	if text, err := exec.CommandContext(ctx, a.muster, "keys", "generate", "--zone", zoneName+".", "--dir", keys).CombinedOutput(); err != nil {
		return fmt.Errorf("making a key: %w\n%s", err, text)
	}
	a.c, err = a.contend(ctx, server{name: "muster", answers: true, argv: signedStreams}, "attack")
	return err
}

// signedStreams is musterStreams with the zone signed.
func signedStreams(l *lab, dir string, port int) ([]string, error) {
	argv, err := musterStreams(l, dir, port)
	if err != nil {
		return nil, err
	}
	return argv, replace(filepath.Join(dir, "muster.yaml"), "source: muster", fmt.Sprintf("source: muster, dnssec: %q", filepath.Join(l.dir, "keys")))
}

// kinds measures each kind of question alone, and returns the rate of hits and that
// of names that are to be signed; 0: nothing could be measured.
func (a *attack) kinds(ctx context.Context, out io.Writer) (peak, signing float64, missed error) {
	kinds := []struct {
		kind  int
		title string
		least float64 // share of the rate of hits
	}{
		{kindHit, "hits", 0},
		{kindMiss, "misses, each another name", missShare},
		{kindSigned, "hits with DO, signed already", signedShare},
		{kindUnsigned, "misses with DO, each to be signed", 0},
	}
	samples := make([][]sample, len(kinds))
	if _, err := a.measure(ctx, a.c, kindSigned, a.o); err != nil { // so that they are
		return 0, 0, err
	}
	for range a.o.rounds {
		for i, k := range kinds {
			s, err := a.measure(ctx, a.c, k.kind, a.o)
			if err != nil {
				return 0, 0, err
			}
			samples[i] = append(samples[i], s)
		}
	}
	fmt.Fprintf(out, "one core, %d questions outstanding, %d rounds of %g s\n", a.o.outstanding, a.o.rounds, a.o.seconds)
	peak = mid(samples[0], (*sample).rate)
	for i, k := range kinds {
		signing = mid(samples[i], (*sample).rate)
		fmt.Fprintf(out, "  %-34s %7.0f answers/s, %4.0f %% of hits, %5.2f us CPU\n", k.title, signing, 100*signing/peak, mid(samples[i], func(s *sample) float64 { return s.cpu }))
		missed = errors.Join(missed, atLeast(k.title, signing/peak, k.least))
	}
	return peak, signing, missed
}

// atLeast is an error if a share is less than its limit.
func atLeast(what string, got, least float64) error {
	if got < least {
		return fmt.Errorf("%s: %.0f %%, less than the limit of %.0f %%", what, 100*got, 100*least)
	}
	return nil
}

// flooded measures questions of a kind at a rate, whatever is answered.
func (a *attack) flooded(ctx context.Context, kind int, rate float64) (sample, error) {
	o := a.o
	o.rate, o.seconds = int(rate), floodTime
	return a.measure(ctx, a.c, kind, o)
}

// flood asks twice as much as can be answered.
func (a *attack) flood(ctx context.Context, out io.Writer, peak float64) error {
	before, err := rss(a.c.proc)
	if err != nil {
		return err
	}
	s, err := a.flooded(ctx, kindHit, 2*peak)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second): // it has so long to come back to itself
	}
	var calm []sample
	for range a.o.rounds {
		after, err := a.measure(ctx, a.c, kindHit, a.o)
		if err != nil {
			return err
		}
		calm = append(calm, after)
	}
	after := mid(calm, (*sample).rate) / peak
	now, err := rss(a.c.proc)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "flood over UDP: %.0f questions/s for %d s\n  %.0f answers/s, %.0f %% of the most; a second later %.0f %%; memory %+.1f MiB\n",
		float64(s.Sent)/floodTime, floodTime, s.rate(), 100*s.rate()/peak, 100*after, float64(now-before)/(1<<20))
	return errors.Join(atLeast("the flood, of what is wanted", float64(s.Sent)/floodTime/(2*peak), 0.9), atLeast("answers in the flood", s.rate()/peak, floodShare),
		atLeast("answers a second after the flood", after, calmShare), atMost("memory after the flood", now-before))
}

// atMost is an error if memory has grown by more than its limit.
func atMost(what string, growth int64) error {
	if growth > growthMax {
		return fmt.Errorf("%s: %.1f MiB more, the limit is %d", what, float64(growth)/(1<<20), growthMax>>20)
	}
	return nil
}

// signingFlood asks for twice as many signatures as can be made, beside plain questions.
func (a *attack) signingFlood(ctx context.Context, out io.Writer, peak, signing float64) error {
	alone, err := a.flooded(ctx, kindHit, peak/5)
	if err != nil {
		return err
	}
	type result struct {
		sample
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := a.flooded(ctx, kindUnsigned, 2*signing)
		done <- result{s, err}
	}()
	beside, err := a.flooded(ctx, kindHit, peak/5)
	flood := <-done
	if err := errors.Join(err, flood.err); err != nil {
		return err
	}
	share := float64(beside.Received) / float64(beside.Sent) / (float64(alone.Received) / float64(alone.Sent))
	fmt.Fprintf(out, "flood of random names with DO: %.0f questions/s, twice what can be signed, beside %.0f plain ones\n"+
		"  of the plain ones %.1f %% are answered as without it; of the flood %.0f %%, %.0f %% with SERVFAIL\n",
		float64(flood.Sent)/floodTime, float64(beside.Sent)/floodTime, 100*share, 100*float64(flood.Received)/float64(flood.Sent), 100*float64(flood.Servfail)/float64(flood.Sent))
	return atLeast("plain answers in the flood", share, plainShare)
}
