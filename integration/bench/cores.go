package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"sync"
	"text/tabwriter"
)

// What the benchmark cores gives to whom, in cores.
const (
	coresWorker    = 0.4 // to a server for each of its workers
	coresGenerator = 0.5 // to each of two generators
	// coresShare is how much of what the echo gains by its second worker Muster
	// must.
	coresShare = 0.9
)

// coresLab is servers with one worker and with two, and the generators' groups.
type coresLab struct {
	*lab
	o          dnsOptions
	all        []*contender // echo and Muster with one worker, then with two
	generators [2]*group
	groups     []*group
}

// runCores measures what a second worker gains.
func runCores(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("cores", out)
	rounds := flags.Int("rounds", 5, "interleaved `rounds`; the median counts")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *rounds < 1 {
		return fmt.Errorf("-rounds %d: must be above 0", *rounds)
	}
	o := dnsOptions{outstanding: 512, sources: sourcesDefault, seconds: 2, data: dataset{services: 1000, instances: 5}, muster: *muster, only: []string{"muster"}}
	l, err := newLab(ctx, o)
	if err != nil {
		return err
	}
	c := &coresLab{lab: l, o: o}
	defer c.close()
	if err := c.start(ctx); err != nil {
		return err
	}
	samples := make([][]sample, len(c.all))
	for range *rounds {
		for i := range c.all {
			s, err := c.turn(ctx, i)
			if err != nil {
				return err
			}
			samples[i] = append(samples[i], s)
		}
	}
	return c.print(out, samples)
}

// start starts the servers, each in a group of its own.
func (c *coresLab) start(ctx context.Context) (err error) {
	for i := range c.generators {
		if c.generators[i], err = c.group(fmt.Sprintf("load%d", i), coresGenerator); err != nil {
			return err
		}
	}
	for workers := 1; workers <= len(c.generators); workers++ {
		for _, s := range []server{
			{name: "echo", argv: func(l *lab, dir string, port int) ([]string, error) {
				argv, err := echoCommand(l, dir, port)
				return append(argv, strconv.Itoa(workers)), err
			}},
			{name: "muster", answers: true, argv: func(l *lab, dir string, port int) ([]string, error) {
				argv, err := musterCommand(l, dir, port)
				if err != nil {
					return nil, err
				}
				return argv, replace(filepath.Join(dir, "muster.yaml"), "workers: 1", fmt.Sprintf("workers: %d", workers))
			}},
		} {
			s.name += strconv.Itoa(workers)
			g, err := c.group(s.name, coresWorker*float64(workers))
			if err != nil {
				return err
			}
			argv := s.argv
			s.argv = func(l *lab, dir string, port int) ([]string, error) {
				command, err := argv(l, dir, port)
				return g.command("0,1", command...), err
			}
			server, err := c.startServer(ctx, s)
			if err != nil {
				return err
			}
			c.all = append(c.all, server)
		}
	}
	return nil
}

func (c *coresLab) group(name string, cores float64) (*group, error) {
	g, err := newGroup(name, cores)
	if err == nil {
		c.groups = append(c.groups, g)
	}
	return g, err
}

func (c *coresLab) close() {
	c.lab.close()
	for _, g := range c.groups {
		g.remove()
	}
}

// turn has both generators ask a server.
func (c *coresLab) turn(ctx context.Context, i int) (sample, error) {
	s, err := c.all[i].measure(func() ([]byte, error) {
		var texts [len(c.generators)][]byte
		var errs [len(c.generators)]error
		var both sync.WaitGroup
		for core, g := range c.generators {
			both.Go(func() {
				argv := g.command(strconv.Itoa(core), c.load, strconv.Itoa(c.all[i].port), c.queries[kindHit],
					strconv.Itoa(c.o.outstanding), strconv.FormatFloat(c.o.seconds, 'f', -1, 64))
				texts[core], errs[core] = command(ctx, core, argv...)
			})
		}
		both.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		return sum(texts[:])
	})
	if err == nil && c.all[i].answers && s.wrong() > 0 {
		err = fmt.Errorf("%s: of %d answers %d were wrong", c.all[i].name, s.Received, s.wrong())
	}
	return s, err
}

// sum is what generators that ran side by side printed, as if it were one's.
func sum(texts [][]byte) ([]byte, error) {
	var all sample
	for _, text := range texts {
		var s sample
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, fmt.Errorf("a generator printed %q: %w", text, err)
		}
		all.Sent, all.Received, all.Lost, all.Stray = all.Sent+s.Sent, all.Received+s.Received, all.Lost+s.Lost, all.Stray+s.Stray
		all.Noerror, all.Answers, all.Octets = all.Noerror+s.Noerror, all.Answers+s.Answers, all.Octets+s.Octets
		all.IdleNS, all.ElapsedNS = all.IdleNS+s.IdleNS, max(all.ElapsedNS, s.ElapsedNS)
	}
	return json.Marshal(all)
}

// print prints the table, and returns what falls short.
func (c *coresLab) print(out io.Writer, samples [][]sample) error {
	fmt.Fprintf(out, "each worker has %g of a core, each of two generators %g; %d rounds of %g s, median (least-greatest)\n\n",
		coresWorker, coresGenerator, len(samples[0]), c.o.seconds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "server, workers\tCPU us/answer\tanswers/s\tof one worker's\tlost\tgenerators idle")
	half := len(c.all) / 2
	for i, server := range c.all {
		for n := range samples[i] {
			samples[i][n].rateRatio = samples[i][n].rate() / samples[i%half][n].rate()
		}
		s := samples[i]
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\t%d\t%.0f %%\n", server.name,
			spread(s, func(s *sample) float64 { return s.cpu }), mid(s, (*sample).rate),
			spread(s, func(s *sample) float64 { return s.rateRatio }), total(s, func(s *sample) int64 { return s.Lost }),
			100*mid(s, func(s *sample) float64 { return float64(s.IdleNS) / float64(s.ElapsedNS) / float64(len(c.generators)) }))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	gain := func(i int) float64 { return mid(samples[i], func(s *sample) float64 { return s.rateRatio }) }
	echo, muster := gain(half), gain(half+1)
	if muster < coresShare*echo {
		return fmt.Errorf("two workers answer %.2f times as much as one, the echo's %.2f times: less than %g of that", muster, echo, coresShare)
	}
	return nil
}
