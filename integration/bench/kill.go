package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// killLanes is how many services have an instance killed at the same time: ten that fall
// would be held (health.churn_hold). killRounds is how often the same one is killed in a
// lab: one that falls four times would be damped.
const (
	killLanes  = 8
	killRounds = 3
)

// killResolution is what the moments of two clients that ask again and again may differ
// by, on two cores that all of it runs on.
const killResolution = 100 * time.Millisecond

// runKill measures how long killed processes stay in the answers, by how their
// death is found out: in Muster's and, of the same kills, in other servers' and
// in those that a client behind a cache gets.
func runKill(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("kill", out)
	runs := flags.Int("runs", 50, "`number` of kills with each check")
	only := flags.String("only", "", "only the deaths whose title has this `text`")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *runs < 1 {
		return fmt.Errorf("-runs %d: must be above 0", *runs)
	}
	var over []error
	for _, d := range fault.Deaths() {
		if !strings.Contains(d.Title, *only) {
			continue
		}
		fmt.Fprintf(out, "kill -9 of an instance to the last wrong answer, %s\n", d.Title)
		witnesses := slices.DeleteFunc(append(d.Peers(), fault.Caches()...), func(w fault.Witness) bool {
			err := w.Installed()
			if err != nil {
				fmt.Fprintf(out, "  MISSING: no row for %s: %v\n", w.Name, err)
			}
			return err != nil
		})
		var crashes fault.Crashes
		for len(crashes) < *runs {
			lanes := min(killLanes, *runs-len(crashes))
			rounds := min(killRounds, (*runs-len(crashes)+lanes-1)/lanes)
			err := inLab(*muster, func(l *fault.Lab) error {
				more, err := fault.Crash(ctx, l, d, lanes, rounds, witnesses...)
				crashes = append(crashes, more...)
				return err
			})
			if err != nil {
				return err
			}
		}
		over = append(over, printCrashes(out, &d, crashes, witnesses))
		if d.Registered() {
			if err := printEtcd(ctx, out, *muster, *runs, &d, crashes); err != nil {
				return err
			}
		}
	}
	return errors.Join(over...)
}

// printCrashes prints a table of those who were asked, and whether limits are held.
func printCrashes(out io.Writer, d *fault.Death, crashes fault.Crashes, witnesses []fault.Witness) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "  Muster\t%s\n", crashes.Saw())
	for i := range witnesses {
		fmt.Fprintf(w, "  %s\t%s\n", witnesses[i].Name, crashes.Other(i))
	}
	w.Flush()
	fmt.Fprintf(out, "  more than the server counts from the first sign: %s\n", crashes.Unseen())
	fmt.Fprintf(out, "  less than its bound, from the last good check: %s\n", crashes.Spare())
	histogram(out, crashes.Saw(), d.Limit/10)
	errs := []error{held(out, fmt.Sprintf("Muster's p%d", d.Percent), crashes.Saw().Quantile(float64(d.Percent)/100), d.Limit)}
	for i := range witnesses {
		if !witnesses[i].Cache {
			continue
		}
		beyond, bound := crashes.Beyond(i), crashes.Bound(witnesses[i])
		fmt.Fprintf(out, "  %s: after Muster's last wrong answer  %s\n", witnesses[i].Name, beyond)
		what := fmt.Sprintf("max of that, with a TTL of %s sent (least kept %s, rounded by %s),", crashes.TTL(), witnesses[i].Floor, witnesses[i].Round)
		errs = append(errs, held(out, what, beyond.Max(), bound+killResolution))
	}
	return errors.Join(errs...)
}

// printEtcd prints what of the time until a registration is gone is etcd's.
func printEtcd(ctx context.Context, out io.Writer, muster string, runs int, d *fault.Death, crashes fault.Crashes) error {
	alone, what := fault.Deletion, "a key that is deleted"
	if d.ByLease() {
		alone, what = fault.Expiry, "a lease that is never renewed"
	}
	fmt.Fprintf(out, "  to etcd's event  %s\n  from that to Muster's last wrong answer  %s\n", crashes.Lost(), crashes.AfterLost())
	return inLab(muster, func(l *fault.Lab) error {
		times, err := alone(ctx, l, runs)
		if err == nil {
			fmt.Fprintf(out, "  etcd alone, %s, to its event  %s\n", what, times)
		}
		return err
	})
}

// histogram prints how many times lie in each step.
func histogram(out io.Writer, times fault.Times, step time.Duration) {
	counts := make([]int, times.Max()/step+1)
	for _, t := range times {
		counts[max(t, 0)/step]++
	}
	for i, n := range counts {
		fmt.Fprintf(out, "  %6.3f s  %-3d %s\n", (time.Duration(i) * step).Seconds(), n, "##################################################"[:min(n, 50)])
	}
}
