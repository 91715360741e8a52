package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// runClock has the clock of a server jump, and sees that nothing else does.
func runClock(ctx context.Context, args []string, out io.Writer) error {
	flags, _ := faultFlags("clock", out)
	if err := parse(flags, args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "muster-clock-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary, err := fault.BuildJumping(ctx, dir)
	if err != nil {
		return err
	}
	const year = 365 * 24 * time.Hour
	var missed error
	for _, by := range []time.Duration{time.Hour, -time.Hour, year} {
		err := inLab(binary, func(l *fault.Lab) error {
			j, err := fault.ClockJump(ctx, l, by)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "the clock jumps by %s, seen by BADTIME as %s\n  checked: %s\n  leased:  %s\n  signatures from %s before to %s after the server's time\n",
				by, j.Clock.Round(time.Second), tally(&j.Checked), tally(&j.Leased), j.Slack, j.Left)
			var far, slack error
			if off := j.Clock - by; off.Abs() > 5*time.Second {
				far = fmt.Errorf("the server's clock is off by %s, want %s", j.Clock, by)
			}
			if j.Slack < time.Hour || j.Left <= 0 {
				slack = fmt.Errorf("signatures begin %s before the server's time and end %s after it", j.Slack, j.Left)
			}
			return errors.Join(j.Checked.Bad(), j.Leased.Bad(), far, slack)
		})
		if err != nil {
			missed = errors.Join(missed, fmt.Errorf("a jump by %s: %w", by, err))
		}
	}
	return missed
}
