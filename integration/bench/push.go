package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// quietMax is the CPU that subscribers may cost while nothing changes, as a part of
// one core: the counting itself has some noise.
const quietMax = 0.001

// runPush measures what a change is to the subscribers of DNS Push.
func runPush(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("push", out)
	o := fault.PushOptions{Settle: 5 * time.Second}
	flags.IntVar(&o.Subscribers, "subscribers", 1000, "`number` of subscribers, each with a connection over TLS")
	flags.IntVar(&o.Runs, "runs", 50, "`number` of changes")
	flags.DurationVar(&o.Quiet, "quiet", 10*time.Second, "`time` in which nothing changes")
	if err := parse(flags, args); err != nil {
		return err
	}
	if o.Subscribers < 1 || o.Runs < 1 || o.Quiet < time.Second {
		return fmt.Errorf("-subscribers %d, -runs %d, -quiet %s: must be at least 1, 1 and 1s", o.Subscribers, o.Runs, o.Quiet)
	}
	return inLab(*muster, func(l *fault.Lab) error {
		r, err := fault.Push(ctx, l, o)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "a put's return to the message, at %d subscribers over TLS, which share the cores with the server\n", o.Subscribers)
		fmt.Fprintf(out, "  each subscriber: %s\n  the last of them: %s\n", r.Times, r.Last)
		fmt.Fprintf(out, "  the server's CPU is %s a message, all included\n", r.CPU)
		fmt.Fprintf(out, "the server's CPU in %s without a change\n  without subscribers %s, with all of them %s\n", o.Quiet, r.Alone, r.Quiet)
		if more := (r.Quiet - r.Alone).Seconds() / o.Quiet.Seconds(); more > quietMax {
			return fmt.Errorf("subscribers cost %.2f %% of a core while nothing changes: more than %g %%", 100*more, 100*quietMax)
		}
		return held(out, "p99", r.Times.Quantile(0.99), 50*time.Millisecond)
	})
}
