package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// kindOfCheck is one row of the checks benchmark.
type kindOfCheck struct {
	title, kind, check string
	gdnsd              string        // its plugin for the same; "": it has none
	limit              time.Duration // of CPU a check; 0: none
}

// runChecks measures the CPU of a check, beside gdnsd's at the same targets and
// interval. All targets are one process on the second core.
func runChecks(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("checks", out)
	c := fault.Checked{}
	flags.IntVar(&c.Targets, "targets", 5000, "`number` of targets, to 65000")
	flags.DurationVar(&c.Interval, "interval", 2*time.Second, "from one check of a target to the next, whole seconds")
	flags.DurationVar(&c.Time, "time", 10*time.Second, "how long to measure")
	only := flags.String("only", "", "only the kinds whose title has this `text`")
	if err := parse(flags, args); err != nil {
		return err
	}
	if c.Targets < 1 || c.Targets > 65000 || c.Interval < time.Second || c.Interval%time.Second != 0 {
		return fmt.Errorf("-targets %d -interval %s: must be 1 to 65000, and whole seconds", c.Targets, c.Interval)
	}
	var over []string
	for _, k := range []kindOfCheck{
		{"http, new connections", "http", `{"type":"http","path":"/","interval":%[1]q,"timeout":%[1]q}`, "http_status", 200 * time.Microsecond},
		{"http, kept connections", "http", `{"type":"http","path":"/","interval":%[1]q,"timeout":%[1]q,"keep":true}`, "", 100 * time.Microsecond},
		{"tcp", "tcp", `{"type":"tcp","interval":%[1]q,"timeout":%[1]q}`, "tcp_connect", 50 * time.Microsecond},
		{"held", "held", `{"type":"held","interval":%[1]q,"timeout":%[1]q}`, "", 0},
	} {
		if !strings.Contains(k.title, *only) {
			continue
		}
		err := inLab(*muster, func(l *fault.Lab) error {
			if err := l.StartTargets(ctx, &c); err != nil {
				return err
			}
			cost, err := c.Measure(ctx, l, k.kind, fmt.Sprintf(k.check, c.Interval))
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%-24s muster  %s\n", k.title, costLine(cost))
			if k.limit > 0 && cost.CPU > k.limit {
				over = append(over, fmt.Sprintf("%s: %s a check, limit %s", k.title, cost.CPU, k.limit))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := gdnsdChecks(ctx, out, *muster, &c, k); err != nil {
			return err
		}
	}
	if len(over) > 0 {
		return fmt.Errorf("checks cost more than they may: %s", strings.Join(over, "; "))
	}
	return nil
}

func costLine(c fault.CheckCost) string {
	return fmt.Sprintf("%5.1f us a check, %6.0f a second and core; %5.0f checks/s were made, RSS %.0f MiB",
		float64(c.CPU.Nanoseconds())/1e3, float64(time.Second)/float64(c.CPU), c.Rate, float64(c.RSS)/(1<<20))
}

// gdnsdChecks is a row for gdnsd, if it is there and has such a check.
func gdnsdChecks(ctx context.Context, out io.Writer, muster string, c *fault.Checked, k kindOfCheck) error {
	if _, err := program.Find("gdnsd"); err != nil || k.gdnsd == "" || c.Interval < fault.GdnsdIntervalMin {
		return nil
	}
	return inLab(muster, func(l *fault.Lab) error {
		if err := l.StartTargets(ctx, c); err != nil {
			return err
		}
		argv, err := gdnsdTargets(l.Path("gdnsd"), c, k.gdnsd)
		if err != nil {
			return err
		}
		p, err := l.Start("gdnsd", append([]string{"taskset", "-c", "0"}, argv...)...)
		if err != nil {
			return err
		}
		count := func() (float64, error) {
			conns, _, err := c.Count(ctx)
			return float64(conns), err
		}
		if err := ready(ctx, p, func() error {
			n, err := count()
			if err == nil && n < float64(2*c.Targets) {
				err = fmt.Errorf("%g checks", n)
			}
			return err
		}); err != nil {
			return fmt.Errorf("%w\n%s", err, p.Output())
		}
		cost, err := c.Cost(ctx, func() (time.Duration, error) { return cpu(p) }, count)
		if err != nil {
			return err
		}
		if cost.RSS, err = rss(p); err != nil {
			return err
		}
		fmt.Fprintf(out, "%-24s gdnsd   %s\n", k.title, costLine(cost))
		return nil
	})
}

// gdnsdTargets is the command of a gdnsd that checks the targets.
func gdnsdTargets(dir string, c *fault.Checked, plugin string) ([]string, error) {
	port, err := program.FreePort()
	if err != nil {
		return nil, err
	}
	g := fault.Gdnsd{
		Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)),
		Plugin: plugin, Port: c.Port, Interval: int(c.Interval.Seconds()),
	}
	const each = 50 // a resource has 64 at most
	for n := 0; n < c.Targets; n += each {
		var addrs []netip.Addr
		for k := n; k < min(n+each, c.Targets); k++ {
			addrs = append(addrs, netip.MustParseAddr(fault.Target(k)))
		}
		g.Resources = append(g.Resources, addrs)
	}
	return g.Command(dir)
}
