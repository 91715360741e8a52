package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// killLanes is how many services have an instance killed at the same time.
const killLanes = 10

// runKill measures how long killed processes stay in the answers, by how their
// death is found out.
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
	for _, d := range fault.Deaths() {
		if !strings.Contains(d.Title, *only) {
			continue
		}
		err := inLab(*muster, func(l *fault.Lab) error {
			lanes := min(killLanes, *runs)
			crashes, err := fault.Crash(ctx, l, d, lanes, (*runs+lanes-1)/lanes)
			if err != nil {
				return err
			}
			times := crashes.Saw()
			fmt.Fprintf(out, "kill -9 of an instance to the last wrong answer, %s\n  %s\n", d.Title, times)
			fmt.Fprintf(out, "  more than the server counts from the first sign: %s\n", crashes.Unseen())
			fmt.Fprintf(out, "  less than its bound, from the last good check: %s\n", crashes.Spare())
			histogram(out, times, d.Limit/10)
			return held(out, fmt.Sprintf("p%d", d.Percent), times.Quantile(float64(d.Percent)/100), d.Limit)
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
		fmt.Fprintf(out, "  %6.3f s  %-3d %s\n", (time.Duration(i) * step).Seconds(), n, "##################################################"[:min(n, 50)])
	}
}
