package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// restart measures starts from a snapshot.
func restart(ctx context.Context, l *fault.Lab, runs int) (fault.Times, error) {
	return fault.Restart(ctx, l, fault.Scale{Services: 10_000, Each: 10}, runs)
}

// runScale measures what many instances cost, beside few.
func runScale(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("scale", out)
	changes := flags.Int("changes", 1000, "`number` of changes that are measured")
	profile := flags.String("profile", "", "`file` for the profile of the last state's heap")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *changes < 1 {
		return fmt.Errorf("-changes %d: must be above 0", *changes)
	}
	scales := []fault.Scale{{Services: 100, Each: 10}, {Services: 10_000, Each: 10}, {Services: 1, Each: 1000}, {Services: 1, Each: 10_000}}
	results := make([]fault.ScaleResult, len(scales))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "services\tinstances each\tload\tRSS MiB\tlive heap MiB\tRSS bytes/instance\theap bytes/instance\tCPU of a change\tidle\tbatches a change")
	for i, sc := range scales {
		err := inLab(*muster, func(l *fault.Lab) (err error) {
			results[i], err = sc.Measure(ctx, l, *changes)
			return err
		})
		if err != nil {
			return err
		}
		r := &results[i]
		if *profile != "" {
			if err := os.WriteFile(*profile, r.Profile, 0o600); err != nil {
				return err
			}
		}
		fmt.Fprintf(w, "%d\t%d\t%s\t%.1f\t%.1f\t%.0f\t%.0f\t%s\t%s\t%.2f\n", sc.Services, sc.Each, r.Load.Round(time.Millisecond),
			mib(r.RSS), mib(r.Heap), sc.Bytes(r.RSS), sc.Bytes(r.Heap), r.Change, r.Idle, r.Batches)
	}
	w.Flush()
	few, many, narrow, wide := &results[0], &results[1], &results[2], &results[3]
	return errors.Join(
		held(out, "the load of 100,000 instances", many.Load, 5*time.Second),
		held(out, "a change among 100,000 instances", many.Change, min(time.Millisecond, 3*few.Change)),
		held(out, "a change of a service of 10,000 instances", wide.Change, min(time.Millisecond, 3*narrow.Change)))
}
