package fault

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/musterdns/muster/integration/program"
)

// Checked is a number of targets that one process answers for, and how long
// each waits for its next check.
type Checked struct {
	Targets  int
	Interval time.Duration
	Time     time.Duration // of the measuring
	Port     int           // of the process; see StartTargets
	Each     int           // targets of a service; 0: 50
}

// targetsEach is Checked.Each when that is zero.
const targetsEach = 50

// Target is the address of the n-th target: all of 127.0.0.0/8 is this machine's.
func Target(n int) string { return fmt.Sprintf("127.%d.%d.%d", 200+n>>16, n>>8&255, n&255) }

// StartTargets starts the process that answers at every target, on the second
// core.
func (l *Lab) StartTargets(ctx context.Context, c *Checked) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if c.Port, err = program.FreePort(); err != nil {
		return err
	}
	p, err := l.Start("targets", append([]string{"taskset", "-c", "1", self}, BackendArgs(fmt.Sprintf("0.0.0.0:%d", c.Port))...)...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p.Poll(ctx, func() error {
		_, _, err := c.Count(ctx)
		return err
	})
}

// Count asks the targets' process how many connections and requests it had; to
// ask is one more connection.
func (c *Checked) Count(ctx context.Context) (conns, requests int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(Target(1), strconv.Itoa(c.Port))+countPath, http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(string(text), &conns, &requests)
	return conns, requests, err
}

// CheckCost is what checks cost the checker.
type CheckCost struct {
	CPU  time.Duration // of one
	Rate float64       // a second
	RSS  int64         // bytes
}

// Measure has a server on the first core check the targets, and says what a
// check of the given kind costs it. That contains whatever else the server does
// in the time.
func (c *Checked) Measure(ctx context.Context, l *Lab, kind, check string) (CheckCost, error) {
	e, err := l.Etcd(ctx)
	if err != nil {
		return CheckCost{}, err
	}
	defer e.Close()
	if err := e.Load(ctx, c.records(check)); err != nil {
		return CheckCost{}, err
	}
	if err := l.Configure(Settings{Etcd: e.URL}); err != nil {
		return CheckCost{}, err
	}
	s, err := l.Serve("taskset", "-c", "0")
	if err != nil {
		return CheckCost{}, err
	}
	if err := s.Ready(ctx); err != nil {
		return CheckCost{}, err
	}
	passed := fmt.Sprintf("muster_health_checks_total{result=\"passed\",type=%q}", kind)
	if err := Until(ctx, 100*time.Millisecond, func() error {
		n, err := s.Metric(ctx, passed)
		if err == nil && n < float64(2*c.Targets) {
			err = fmt.Errorf("%g checks have passed", n)
		}
		return err
	}); err != nil {
		return CheckCost{}, fmt.Errorf("%w\n%s", err, s.LogTail())
	}
	failed := fmt.Sprintf("muster_health_checks_total{result=\"failed\",type=%q}", kind)
	before, err := s.Metric(ctx, failed) // all begin together, which the targets may find too much
	if err != nil {
		return CheckCost{}, err
	}
	cost, err := c.Cost(ctx, s.CPU, func() (float64, error) { return s.Metric(ctx, passed) })
	if err != nil {
		return cost, err
	}
	after, err := s.Metric(ctx, failed)
	if err != nil {
		return cost, err
	}
	if after-before > cost.Rate*c.Time.Seconds()/20 {
		return cost, fmt.Errorf("%g checks have failed", after-before)
	}
	cost.RSS, err = s.RSS()
	return cost, err
}

// Cost divides the CPU of a time by the checks of it.
func (c *Checked) Cost(ctx context.Context, cpu func() (time.Duration, error), count func() (float64, error)) (CheckCost, error) {
	var n [2]float64
	var used [2]time.Duration
	var at [2]time.Time
	for i := range 2 {
		var err error
		if n[i], err = count(); err != nil {
			return CheckCost{}, err
		}
		if used[i], err = cpu(); err != nil {
			return CheckCost{}, err
		}
		at[i] = time.Now()
		if i == 1 {
			break
		}
		select {
		case <-time.After(c.Time):
		case <-ctx.Done():
			return CheckCost{}, ctx.Err()
		}
	}
	done := n[1] - n[0]
	if done <= 0 {
		return CheckCost{}, fmt.Errorf("no checks in %s", c.Time)
	}
	return CheckCost{CPU: time.Duration(float64(used[1]-used[0]) / done), Rate: done / at[1].Sub(at[0]).Seconds()}, nil
}

// records are the keys of the targets, and of their services if there is a check
// to be theirs.
func (c *Checked) records(check string) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		each := cmp.Or(c.Each, targetsEach)
		for n := range c.Targets {
			service := ServiceName(n / each)
			if check != "" && n%each == 0 && !yield(Keys+"services/"+service, `{"checks":[`+check+`]}`) {
				return
			}
			if !yield(Instance(service, fmt.Sprintf("i%d", n%each)), fmt.Sprintf(`{"address":%q,"port":%d}`, Target(n), c.Port)) {
				return
			}
		}
	}
}
