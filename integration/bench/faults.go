package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// errNoMuster is the error of a benchmark that was not told what to measure.
var errNoMuster = errors.New("no Muster to measure: set -muster or MUSTER_BIN, or run make bench")

// faultFlags are the flags of a benchmark, of which each has -muster.
func faultFlags(name string, out io.Writer) (flags *flag.FlagSet, muster *string) {
	flags = flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(out)
	return flags, flags.String("muster", os.Getenv("MUSTER_BIN"), "`path` of the binary to measure; default: $MUSTER_BIN")
}

// onlyFlag is the flag that names some of those who would take part.
func onlyFlag[T any](flags *flag.FlagSet, only *[]string, what string, all []T, name func(T) string) {
	flags.Func("only", "comma-separated "+what+"s instead of all that are installed", func(s string) error {
		*only = strings.Split(s, ",")
		for _, o := range *only {
			if !slices.ContainsFunc(all, func(t T) bool { return name(t) == o }) {
				return fmt.Errorf("no %s %q", what, o)
			}
		}
		return nil
	})
}

// parse reads a benchmark's flags. Another benchmark's name behind them would be
// left out without a word.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q: one benchmark at a time, and its flags", flags.Arg(0))
	}
	return nil
}

// inLab calls f with a lab for the binary.
func inLab(muster string, f func(*fault.Lab) error) error {
	if muster == "" {
		return errNoMuster
	}
	path, err := filepath.Abs(muster)
	if err != nil {
		return err
	}
	l, err := fault.NewLab(path)
	if err != nil {
		return err
	}
	defer l.Close()
	return f(l)
}

// runTimes makes a benchmark of something that takes a time, with a limit for
// one of its quantiles.
func runTimes(name, what string, runs int, quantile float64, limit time.Duration, measure func(context.Context, *fault.Lab, int) (fault.Times, error)) func(context.Context, []string, io.Writer) error {
	return func(ctx context.Context, args []string, out io.Writer) error {
		flags, muster := faultFlags(name, out)
		n := flags.Int("runs", runs, "`number` of runs")
		if err := parse(flags, args); err != nil {
			return err
		}
		if *n < 1 {
			return fmt.Errorf("-runs %d: must be above 0", *n)
		}
		return inLab(*muster, func(l *fault.Lab) error {
			times, err := measure(ctx, l, *n)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%s\n  %s\n", what, times)
			return held(out, fmt.Sprintf("p%g", 100*quantile), times.Quantile(quantile), limit)
		})
	}
}

// held prints whether a time is within its limit; it is an error if not.
func held(out io.Writer, what string, got, limit time.Duration) error {
	if got > limit {
		return fmt.Errorf("%s is %s: more than the limit of %s", what, got, limit)
	}
	fmt.Fprintf(out, "  %s is within the limit of %s\n", what, limit)
	return nil
}
