package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// takeoverMax is how long after a server's death the others may take to check
// its share: its lease, and two seconds.
const takeoverMax = fault.MemberLease + 2*time.Second

// runShare measures the checks that servers of one registry send: one alone,
// three, of which each checks every instance, and four, of which each checks
// three quarters, and one dies.
func runShare(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("share", out)
	instances := flags.Int("instances", 3000, "`number` of instances")
	interval := flags.Duration("interval", 2*time.Second, "`time` between two checks of an instance")
	window := flags.Duration("window", 20*time.Second, "how `long` checks are counted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d instances, http check each %s on a new connection\n", *instances, *interval)
	alone := 0.0
	for _, servers := range []int{1, 3, 4} {
		err := inLab(*muster, func(l *fault.Lab) error {
			p, err := l.StartPeers(ctx, servers, *instances, *interval)
			if err != nil {
				return err
			}
			defer p.Close()
			share := float64(*instances) * float64(min(servers, 3)) / float64(servers)
			for i := range servers {
				if err := p.AwaitTargets(ctx, i, share*0.85, share*1.15); err != nil {
					return err
				}
			}
			rates, err := p.Rates(ctx, *window)
			if err != nil {
				return err
			}
			if servers == 1 {
				alone = rates[0]
			}
			if err := tellRates(out, rates, alone); err != nil {
				return err
			}
			if servers < 4 {
				return nil
			}
			return takeover(ctx, out, p, *instances)
		})
		if err != nil {
			return fmt.Errorf("%d servers: %w", servers, err)
		}
	}
	return nil
}

// tellRates prints what servers send beside what one sends alone, and holds it
// to three times as much, evenly.
func tellRates(out io.Writer, rates []float64, alone float64) error {
	sum := 0.0
	for _, r := range rates {
		sum += r
	}
	mean := sum / float64(len(rates))
	worst := 0.0
	for _, r := range rates {
		worst = max(worst, r/mean-1, 1-r/mean)
	}
	fmt.Fprintf(out, "  %d servers: %.0f checks a second, %.2f times those of one alone; a server %.0f, at most %.1f %% from the mean\n",
		len(rates), sum, sum/alone, mean, 100*worst)
	if want := float64(min(len(rates), 3)); sum/alone < 0.9*want || sum/alone > 1.1*want {
		return fmt.Errorf("%.2f times the checks of one, want %.0f", sum/alone, want)
	}
	if worst > 0.15 {
		return fmt.Errorf("a server is %.0f %% from the mean, want 15 %% at most", 100*worst)
	}
	return nil
}

// takeover kills the last of four servers and measures how long it takes until
// the others check every instance, and whether a verdict flips meanwhile.
func takeover(ctx context.Context, out io.Writer, p *fault.Peers, instances int) error {
	last := len(p.Servers) - 1
	before := make([]float64, last)
	for i := range last {
		var err error
		if before[i], err = p.Changes(ctx, i); err != nil {
			return err
		}
	}
	if err := fault.Kill(p.Servers[last].Process); err != nil {
		return err
	}
	killed := time.Now()
	for i := range last {
		if err := p.AwaitTargets(ctx, i, float64(instances), float64(instances)); err != nil {
			return err
		}
	}
	took := time.Since(killed)
	fmt.Fprintf(out, "  one of four is killed: the others check its share after %.1f s\n", took.Seconds())
	for i := range last {
		after, err := p.Changes(ctx, i)
		if err != nil {
			return err
		}
		if after != before[i] {
			return fmt.Errorf("server %d: %.0f verdicts flipped", i, after-before[i])
		}
	}
	fmt.Fprintln(out, "  no verdict flipped")
	return held(out, "the takeover", took, takeoverMax)
}
