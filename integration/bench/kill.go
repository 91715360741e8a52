package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// killLanes is how many services have an instance killed at the same time.
const killLanes = 10

// runKill measures how long killed processes stay in the answers, with a check
// each second and with the defaults.
func runKill(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("kill", out)
	runs := flags.Int("runs", 50, "`number` of kills with each check")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *runs < 1 {
		return fmt.Errorf("-runs %d: must be above 0", *runs)
	}
	for _, c := range []struct {
		title, check string
		limit        time.Duration
	}{
		{"http check each 1 s, fall 2", fault.CheckEverySecond, 2200 * time.Millisecond},
		{"http check by default: each 2 s, fall 3", fault.CheckByDefault, 3500 * time.Millisecond},
	} {
		err := inLab(*muster, func(l *fault.Lab) error {
			lanes := min(killLanes, *runs)
			times, err := fault.Crash(ctx, l, c.check, lanes, (*runs+lanes-1)/lanes)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "kill -9 of an instance to the last wrong answer, %s\n  %s\n", c.title, times)
			histogram(out, times, c.limit/10)
			return held(out, "the longest", times.Max(), c.limit)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// histogram prints how many times lie in each step.
func histogram(out io.Writer, times fault.Times, step time.Duration) {
	counts := make([]int, times.Max()/step+1)
	for _, t := range times {
		counts[max(t, 0)/step]++
	}
	for i, n := range counts {
		fmt.Fprintf(out, "  %5.2f s  %-3d %s\n", (time.Duration(i) * step).Seconds(), n, "##################################################"[:min(n, 50)])
	}
}
