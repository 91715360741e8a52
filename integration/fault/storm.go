package fault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Storm is what came of many leases that were not kept alive any more.
type Storm struct {
	Expiring time.Duration // from the first deletion to the last: etcd revokes a thousand leases a second
	Converge time.Duration // from the last deletion that a client of etcd has seen
	Calm     Tally         // of a load before
	Storm    Tally         // of the same while the leases expire
}

// stormRate and stormWindow are the load of Storm: queries a second, and for how long it
// is measured before.
const (
	stormRate   = 2000
	stormWindow = 5 * time.Second
)

// LeaseStorm has instances expire, each under a lease of its own that nobody keeps alive,
// beside one that stays of each service, and measures how long the server takes to answer
// what is left, and what it answers meanwhile. Removals are not held. ttl is that of the
// leases, in seconds: all must be there before the first expires.
func LeaseStorm(ctx context.Context, l *Lab, leases, ttl int) (*Storm, error) {
	const services = 100
	e, err := l.Etcd(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	if err := e.Load(ctx, Instances(services, 1)); err != nil {
		return nil, err
	}
	if err := l.Configure(Settings{Etcd: e.URL}); err != nil {
		return nil, err
	}
	s, err := l.Serve("env", "MUSTER_HEALTH_CHURN_HOLD=0s")
	if err != nil {
		return nil, err
	}
	if err := s.Ready(ctx); err != nil {
		return nil, err
	}
	load := Load{Addr: s.DNS, Rate: stormRate, Window: stormWindow, Judge: Answered}
	for i := range services {
		load.Names = append(load.Names, ServiceName(i)+"."+Zone)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Duration(ttl)*time.Second+time.Duration(leases/500)*time.Second+time.Minute)
	defer cancel()
	expired := e.Watch(ctx, Keys+"instances/", clientv3.WithPrefix(), clientv3.WithFilterPut())
	began := time.Now()
	if err := e.grantAll(ctx, services, leases, ttl); err != nil {
		return nil, err
	}
	out := &Storm{}
	if err := s.awaitServing(ctx, services+leases); err != nil {
		return nil, err
	}
	if out.Calm, err = load.Run(ctx); err != nil {
		return nil, err
	}
	if took := time.Since(began); took > time.Duration(ttl)*time.Second {
		return nil, fmt.Errorf("to make %d leases and to ask took %s, and they are for %d s: some have expired before", leases, took, ttl)
	}
	return out, s.storm(ctx, expired, load, services, leases, out)
}

// grantAll makes the instances, each under a lease.
func (e *Etcd) grantAll(ctx context.Context, services, leases, ttl int) error {
	const writers = 64
	errs := make([]error, writers)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := w; i < leases && errs[w] == nil; i += writers {
				errs[w] = e.putLeased(ctx, ServiceName(i%services), i, ttl)
			}
		})
	}
	writing.Wait()
	return errors.Join(errs...)
}

// putLeased makes the i-th instance.
func (e *Etcd) putLeased(ctx context.Context, service string, i, ttl int) error {
	lease, err := e.Grant(ctx, int64(ttl))
	if err != nil {
		return err
	}
	value := fmt.Sprintf("10.%d.%d.%d:80", 100+i>>16, i>>8&255, i&255)
	_, err = e.Put(ctx, Instance(service, fmt.Sprintf("leased%d", i)), value, clientv3.WithLease(lease.ID))
	return err
}

// storm waits until all leases have expired, and the server answers what is left.
func (s *Server) storm(ctx context.Context, expired clientv3.WatchChan, load Load, services, leases int, out *Storm) error {
	asking, end := context.WithCancel(ctx)
	defer end()
	load.Window = 0
	asked := make(chan error, 1)
	var first, last time.Time
	for gone := 0; gone < leases; {
		r, ok := <-expired
		if !ok {
			return fmt.Errorf("%d of %d leases have expired: %w", gone, leases, ctx.Err())
		}
		if err := r.Err(); err != nil {
			return err
		}
		if last = time.Now(); first.IsZero() && len(r.Events) > 0 {
			first = last
			go func() {
				var err error
				out.Storm, err = load.Run(asking)
				asked <- err
			}()
		}
		gone += len(r.Events)
	}
	err := s.awaitServing(ctx, services)
	out.Expiring, out.Converge = last.Sub(first), time.Since(last)
	end()
	return errors.Join(err, <-asked)
}

// awaitServing waits until the server answers n instances.
func (s *Server) awaitServing(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*startTimeout)
	defer cancel()
	return s.Poll(ctx, func() error {
		st, err := s.status(ctx)
		if err == nil && st.Instances.Serving != n {
			err = fmt.Errorf("%d instances are answered, want %d", st.Instances.Serving, n)
		}
		return err
	})
}

// Share is how much of what was asked was answered, and answered right.
func (t *Tally) Share() float64 {
	wrong := 0
	for _, n := range t.Wrong {
		wrong += n
	}
	return float64(t.Answered-wrong) / float64(max(t.Sent, 1))
}
