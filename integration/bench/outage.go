package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// runOutage measures what clients notice when etcd is away.
func runOutage(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("outage", out)
	o := fault.OutageOptions{}
	flags.DurationVar(&o.Down, "down", time.Minute, "`time` for which etcd is away")
	if err := parse(flags, args); err != nil {
		return err
	}
	return inLab(*muster, func(l *fault.Lab) error {
		r, err := fault.Outage(ctx, l, o)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "etcd killed for %s under load\n  %s\n  the last stale answer said %q\n", o.Down, tally(&r.Away), r.Age)
		fmt.Fprintf(out, "etcd started: a put there answered after %s\n", r.Back)
		fmt.Fprintf(out, "muster started without etcd: first answer after %s\n", r.Restart)
		if text, ok := fault.Stale(r.Snapshot); ok {
			fmt.Fprintf(out, "  it said %q, with TTL %d\n", text, r.Snapshot.Answer[0].Header().Ttl)
		}
		fmt.Fprintf(out, "etcd started: a put there answered after %s\n  %s\n", r.Again, tally(&r.Return))
		return errors.Join(r.Away.Bad(), r.Return.Bad(),
			held(out, "catching up", max(r.Back, r.Again), 5*time.Second),
			held(out, "the answer from the snapshot", r.Restart, time.Second))
	})
}

// tally is what came of a load, in a line.
func tally(t *fault.Tally) string {
	return fmt.Sprintf("%d sent, %d answered, %d of them stale, %d lost, %d wrong, the slowest %s", t.Sent, t.Answered, t.Stale, t.Lost, len(t.Wrong), t.Slowest)
}
