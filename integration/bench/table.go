package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
)

// of collects one figure of all samples.
func of(samples []sample, f func(*sample) float64) []float64 {
	v := make([]float64, len(samples))
	for i := range samples {
		v[i] = f(&samples[i])
	}
	return v
}

// median of a list that is not empty; of an even number, the mean of the middle
// two.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// mid is the median of one figure.
func mid(samples []sample, f func(*sample) float64) float64 { return median(of(samples, f)) }

// spread is the median with the least and the greatest.
func spread(samples []sample, f func(*sample) float64) string {
	v := of(samples, f)
	return fmt.Sprintf("%.2f (%.2f-%.2f)", mid(samples, f), slices.Min(v), slices.Max(v))
}

// total is the sum of one figure.
func total(samples []sample, f func(*sample) int64) int64 {
	var n int64
	for i := range samples {
		n += f(&samples[i])
	}
	return n
}

// printDNS prints a table for each kind of load.
func printDNS(out io.Writer, all []*contender, o dnsOptions) {
	fmt.Fprintf(out, "\n%d services x %d instances, %d queries outstanding from %d ports, %d rounds of %g s; ratios are to the echo's runs before and after, median (least-greatest)\n",
		o.data.services, o.data.instances, o.outstanding, o.sources, o.rounds, o.seconds)
	for k := range kinds {
		fmt.Fprintf(out, "\n%s\n", kinds[k].title)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "server\tCPU us/answer\tCPU ratio\tanswers/s\trate ratio\tp50 us\tp99 us\tsent\tlost\twrong\trecords\toctets\tgenerator idle\tRSS MiB")
		for _, c := range all {
			s := c.samples[k]
			if len(s) == 0 {
				continue
			}
			received := float64(total(s, func(s *sample) int64 { return s.Received }))
			fmt.Fprintf(w, "%s\t%.2f\t%s\t%.0f\t%s\t%.0f\t%.0f\t%d\t%d\t%d\t%.1f\t%.0f\t%.0f %%\t%.1f\n", c.name,
				mid(s, func(s *sample) float64 { return s.cpu }),
				spread(s, func(s *sample) float64 { return s.cpuRatio }),
				mid(s, (*sample).rate),
				spread(s, func(s *sample) float64 { return s.rateRatio }),
				mid(s, func(s *sample) float64 { return s.P50 }),
				mid(s, func(s *sample) float64 { return s.P99 }),
				total(s, func(s *sample) int64 { return s.Sent }),
				total(s, func(s *sample) int64 { return s.Lost }),
				total(s, (*sample).wrong),
				float64(total(s, func(s *sample) int64 { return s.Answers }))/received,
				float64(total(s, func(s *sample) int64 { return s.Octets }))/received,
				100*mid(s, func(s *sample) float64 { return float64(s.IdleNS) / float64(s.ElapsedNS) }),
				float64(c.rss)/(1<<20))
		}
		w.Flush()
	}
}

// printHeap prints what Muster's metrics say of its heap, if it takes part.
func (l *lab) printHeap(ctx context.Context, out io.Writer) error {
	if l.admin == "" {
		return nil
	}
	text, err := call(ctx, http.MethodGet, "http://"+l.admin+"/metrics", nil)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		var v float64
		if _, err := fmt.Sscanf(line, "go_memstats_heap_inuse_bytes %g", &v); err == nil {
			fmt.Fprintf(out, "\nmuster's heap in use: %.1f MiB\n", v/(1<<20))
			return nil
		}
	}
	return fmt.Errorf("muster's metrics at %s lack go_memstats_heap_inuse_bytes", l.admin)
}
