package main

import (
	"context"
	"fmt"
	"io"

	"github.com/musterdns/muster/integration/fault"
)

// runHostile measures what hostile keys do to good ones.
func runHostile(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("hostile", out)
	good := flags.Int("good", 1000, "`number` of good services")
	bad := flags.Int("bad", 10_000, "`number` of hostile keys")
	if err := parse(flags, args); err != nil {
		return err
	}
	return inLab(*muster, func(l *fault.Lab) error {
		r, err := fault.Hostile(ctx, l, *good, *bad)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d hostile keys among %d good services\n", r.Bad, r.Good)
		fmt.Fprintf(out, "  good ones answered right: %d\n  keys that cannot be used: %d\n  lines of the log about them: %d, the longest line %d octets, %d forged\n",
			r.Served, r.Problems, r.LogLines, r.LongestLine, len(r.Forged))
		fmt.Fprintf(out, "  muster doctor: %d findings in %d KiB\n  panics: %d\n  RSS: %.1f MiB, %+.1f by the hostile keys\n",
			len(r.Findings), r.FindingsSize>>10, r.Panics, mib(r.RSS), mib(r.RSSMore))
		if r.Served != r.Good || len(r.Forged) > 0 || r.LogLines > r.Bad || r.Panics > 0 {
			return fmt.Errorf("%d of %d good services served, %d log lines, %d forged, %d panics", r.Served, r.Good, r.LogLines, len(r.Forged), r.Panics)
		}
		return nil
	})
}

// mib is a number of bytes in MiB.
func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
