package fault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// The services of an outage: their TTL is longer than what a stale answer may
// have, so that its being lowered shows.
const (
	outageServices  = 20
	outageInstances = 4
	outageTTL       = 60
	// outageRate is the load, queries a second.
	outageRate = 200
)

// OutageOptions is how long an outage is.
type OutageOptions struct {
	Down       time.Duration // etcd is away for so long
	StaleAfter time.Duration // the setting; 0: the default, 10 s
}

// OutageResult is what clients noticed of an outage.
type OutageResult struct {
	Away     Tally         // the load while etcd was away and came back
	Back     time.Duration // from etcd's answering again to the answer to a put there
	Age      string        // the text of the extended error just before
	Restart  time.Duration // from Muster's start without etcd to its first answer
	Snapshot *dns.Msg      // that answer
	Return   Tally         // the load after that restart, while etcd came back
	Again    time.Duration // as Back, after the restart
}

// Outage kills etcd while questions are asked, starts it again, kills it once
// more and starts Muster anew without it.
func Outage(ctx context.Context, l *Lab, o OutageOptions) (OutageResult, error) {
	var r OutageResult
	e, err := l.Etcd(ctx)
	if err != nil {
		return r, err
	}
	defer e.Close()
	if err := e.Load(ctx, Instances(outageServices, outageInstances)); err != nil {
		return r, err
	}
	for i := range outageServices {
		if _, err := e.Put(ctx, Keys+"services/"+ServiceName(i), fmt.Sprintf(`{"ttl":%d}`, outageTTL)); err != nil {
			return r, err
		}
	}
	s, err := l.Run(ctx, Settings{Etcd: e.URL, StaleAfter: o.StaleAfter, Snapshot: l.Path("snapshot")})
	if err != nil {
		return r, err
	}
	if err := r.away(ctx, e, s, o.Down); err != nil {
		return r, fmt.Errorf("%w\n%s", err, s.LogTail())
	}
	if err := e.Kill(); err != nil {
		return r, err
	}
	s.Stop()
	if s, err = l.Serve(); err != nil {
		return r, err
	}
	if err := r.restart(ctx, e, s); err != nil {
		return r, fmt.Errorf("%w\n%s", err, s.LogTail())
	}
	return r, nil
}

// Load asks for all services until the function it returns is called, which
// then returns what came of it.
func (s *Server) Load(ctx context.Context, services, each, rate int) func() (Tally, error) {
	l := Load{Addr: s.DNS, Rate: rate, Judge: right(each)}
	for i := range services {
		l.Names = append(l.Names, ServiceName(i)+"."+Zone)
	}
	ctx, cancel := context.WithCancel(ctx)
	var t Tally
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		t, err = l.Run(ctx)
	}()
	return func() (Tally, error) { cancel(); <-done; return t, err }
}

// right judges answers about services of so many instances each.
func right(each int) func(*dns.Msg) error {
	return func(m *dns.Msg) error {
		var i int
		if len(m.Question) != 1 {
			return errors.New("it has no question")
		}
		if _, err := fmt.Sscanf(m.Question[0].Name, "svc%d.", &i); err != nil {
			return err
		}
		want := make([]string, each)
		for k := range each {
			want[k] = Address(i*each + k)
		}
		return Has(want...)(m)
	}
}

// away is the first half: Muster stays while etcd goes and comes back.
func (r *OutageResult) away(ctx context.Context, e *Etcd, s *Server, down time.Duration) (err error) {
	stop := s.Load(ctx, outageServices, outageInstances, outageRate)
	defer func() {
		var lerr error
		r.Away, lerr = stop()
		err = errors.Join(err, lerr)
	}()
	if err := e.Kill(); err != nil {
		return err
	}
	select {
	case <-time.After(down):
	case <-ctx.Done():
		return ctx.Err()
	}
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return err
	}
	defer c.Close()
	m, err := c.Ask(ServiceName(0)+"."+Zone, dns.TypeA)
	if err != nil {
		return err
	}
	r.Age, _ = Stale(m)
	r.Back, err = e.comeBack(ctx, c)
	return err
}

// comeBack starts etcd again and measures until a put there is answered, by an
// answer that is not stale.
func (e *Etcd) comeBack(ctx context.Context, c *Client) (time.Duration, error) {
	if err := e.Start(); err != nil {
		return 0, err
	}
	if err := e.Ready(ctx); err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := e.Put(ctx, Instance("back", "one"), fmt.Sprintf(`{"address":"10.9.9.9","port":8080,"meta":{"at":%q}}`, began)); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err := c.Await(ctx, "back."+Zone, dns.TypeA, func(m *dns.Msg) error {
		if _, stale := Stale(m); stale {
			return errors.New("a stale answer")
		}
		return Has("10.9.9.9")(m)
	})
	if err != nil {
		return 0, err
	}
	took := time.Since(began)
	_, err = e.Delete(ctx, Instance("back", "one"))
	return took, err
}

// restart is the second half: Muster starts while etcd is away.
func (r *OutageResult) restart(ctx context.Context, e *Etcd, s *Server) (err error) {
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return err
	}
	defer c.Close()
	limited, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if r.Snapshot, err = c.Await(limited, ServiceName(0)+"."+Zone, dns.TypeA, right(outageInstances)); err != nil {
		return err
	}
	r.Restart = s.Age()
	stop := s.Load(ctx, outageServices, outageInstances, outageRate)
	r.Again, err = e.comeBack(ctx, c)
	var lerr error
	r.Return, lerr = stop()
	return errors.Join(err, lerr)
}
