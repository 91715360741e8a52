package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// restart measures starts from a snapshot.
func restart(ctx context.Context, l *fault.Lab, runs int) (fault.Times, error) {
	return fault.Restart(ctx, l, fault.Scale{Services: 10_000, Each: 10}, runs)
}

// The rows of the scale benchmark.
const (
	scaleFew = iota
	scaleMany
	scaleChecked // as many as scaleMany
	scaleNarrow
	scaleWide
	scaleMost
)

// The limits of live heap, bytes an instance.
const (
	heapLimit      = 400
	heapCheckLimit = 250 // more, with a check
)

// runScale measures what many instances cost, beside few.
func runScale(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("scale", out)
	changes := flags.Int("changes", 1000, "`number` of changes that are measured")
	most := flags.Int("services", 100_000, "`number` of services of 10 instances in the largest state; 0: without it")
	only := flags.Bool("most", false, "only the largest state")
	profile := flags.String("profile", "", "`file` for the profile of the last state's heap")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *changes < 1 || *most < 0 || *only && *most == 0 {
		return fmt.Errorf("-changes %d -services %d: must be above 0", *changes, *most)
	}
	scales := []fault.Scale{
		scaleFew: {Services: 100, Each: 10}, scaleMany: {Services: 10_000, Each: 10},
		scaleChecked: {Services: 10_000, Each: 10, Checked: true},
		scaleNarrow:  {Services: 1, Each: 1000}, scaleWide: {Services: 1, Each: 10_000},
		scaleMost: {Services: *most, Each: 10, Busy: true},
	}
	results := make([]fault.ScaleResult, len(scales))
	fmt.Fprintln(out, "GOGC is Go's own, 100; RSS is after the load, whose garbage it contains. Live heap is what a collection leaves.")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "services\tinstances each\tchecks each\tload\tRSS MiB\tlive heap MiB\tRSS bytes/instance\theap bytes/instance\tCPU of a change\tidle\tbatches a change")
	for i, sc := range scales {
		if sc.Services == 0 || *only && i != scaleMost {
			continue
		}
		err := inLab(*muster, func(l *fault.Lab) (err error) {
			results[i], err = sc.Measure(ctx, l, *changes)
			return err
		})
		if err != nil {
			return err
		}
		r, checks := &results[i], 0
		if sc.Checked {
			checks = 1
		}
		if *profile != "" {
			if err := os.WriteFile(*profile, r.Profile, 0o600); err != nil {
				return err
			}
		}
		fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%.1f\t%.1f\t%.0f\t%.0f\t%s\t%s\t%.2f\n", sc.Services, sc.Each, checks, r.Load.Round(time.Millisecond),
			mib(r.RSS), mib(r.Heap), sc.Bytes(r.RSS), sc.Bytes(r.Heap), r.Change, r.Idle, r.Batches)
	}
	w.Flush()
	var errs []error
	if !*only {
		errs = append(errs, heldScales(out, scales, results))
	}
	if *most > 0 {
		errs = append(errs, heldMost(out, &scales[scaleMost], &results[scaleMost]))
	}
	return errors.Join(errs...)
}

// heldScales holds the states up to 100,000 instances against their limits.
func heldScales(out io.Writer, scales []fault.Scale, results []fault.ScaleResult) error {
	few, many, narrow, wide := &results[scaleFew], &results[scaleMany], &results[scaleNarrow], &results[scaleWide]
	check := scales[scaleMany].Bytes(results[scaleChecked].Heap - many.Heap)
	return errors.Join(
		held(out, "the load of 100,000 instances", many.Load, 5*time.Second),
		held(out, "a change among 100,000 instances", many.Change, min(time.Millisecond, 3*few.Change)),
		held(out, "a change of a service of 10,000 instances", wide.Change, min(time.Millisecond, 3*narrow.Change)),
		heldBytes(out, "live heap of a check", check, heapCheckLimit))
}

// heldMost holds the largest state against its limits. Latencies on a machine
// that etcd and the one who asks share with the server are no limits: beside
// etcd's own changes they show what applying them adds.
func heldMost(out io.Writer, sc *fault.Scale, r *fault.ScaleResult) error {
	b := &r.Busy
	printRounds(out, "nothing changes", b.Rounds, func(r *fault.BusyRound) fault.Times { return r.Quiet })
	printRounds(out, "etcd has other changes", b.Rounds, func(r *fault.BusyRound) fault.Times { return r.Elsewhere })
	printRounds(out, fmt.Sprintf("%.0f changes/s applied", b.Rounds[0].Changes), b.Rounds, func(r *fault.BusyRound) fault.Times { return r.Applied })
	fmt.Fprintf(out, "a put's return to the answer:      %s\n", b.Put)
	return errors.Join(
		held(out, "the load of the largest state", r.Load, time.Minute),
		held(out, "a change in it", r.Change, time.Millisecond),
		held(out, "p99 of a put's return to the answer", b.Put.Quantile(0.99), 20*time.Millisecond),
		heldBytes(out, "live heap of an instance without checks", sc.Bytes(r.Heap), heapLimit))
}

// printRounds prints the quantiles of answers' times: their medians over the rounds, and
// what they were in single ones.
func printRounds(out io.Writer, what string, rounds []fault.BusyRound, times func(*fault.BusyRound) fault.Times) {
	fmt.Fprintf(out, "answers, %s:", what)
	for _, q := range []float64{0.5, 0.99, 0.999} {
		var each []float64
		for i := range rounds {
			each = append(each, times(&rounds[i]).Quantile(q).Seconds()*1000)
		}
		fmt.Fprintf(out, "  p%g %.2f ms (%.2f to %.2f)", 100*q, median(each), slices.Min(each), slices.Max(each))
	}
	fmt.Fprintln(out)
}

// heldBytes prints a size that is within its limit, and returns an error for one
// that is not.
func heldBytes(out io.Writer, what string, got, limit float64) error {
	if got > limit {
		return fmt.Errorf("%s is %.0f bytes: more than the limit of %.0f", what, got, limit)
	}
	fmt.Fprintf(out, "  %s is %.0f bytes, within the limit of %.0f\n", what, got, limit)
	return nil
}
