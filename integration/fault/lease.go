package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaseTTL is the lease of an instance whose lease is to expire, seconds: about
// the least that etcd grants.
const leaseTTL = 2

// Lease measures how long the answer takes to change after a client of etcd has
// seen the deletion of an instance whose lease was lost: revoked, or not
// kept alive in every tenth run. A time below zero means that the answer had
// changed before that client saw why.
func Lease(ctx context.Context, l *Lab, runs int) (Times, error) {
	e, s, err := l.follow(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := e.Put(ctx, Instance("leased", "stays"), "10.0.0.1:8080"); err != nil {
		return nil, err
	}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	deleted := make(chan time.Time, 1)
	events := e.Watch(watch, Instance("leased", "goes"), clientv3.WithFilterPut())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range events {
			deleted <- time.Now()
		}
	}()
	defer func() { stop(); <-done }()
	var times Times
	for i := range runs {
		took, err := e.lose(ctx, c, i%10 == 0, deleted)
		if err != nil {
			return nil, fmt.Errorf("run %d: %w", i, err)
		}
		times = append(times, took)
	}
	return times, nil
}

// lose makes an instance lose its lease once.
func (e *Etcd) lose(ctx context.Context, c *Client, expire bool, deleted <-chan time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	lease, err := e.Grant(ctx, leaseTTL)
	if err != nil {
		return 0, err
	}
	if _, err := e.Client.Put(ctx, Instance("leased", "goes"), "10.0.0.2:8080", clientv3.WithLease(lease.ID)); err != nil {
		return 0, err
	}
	if _, err := c.Await(ctx, "leased."+Zone, dns.TypeA, Has("10.0.0.1", "10.0.0.2")); err != nil {
		return 0, err
	}
	revoked := make(chan error, 1)
	if expire {
		revoked <- nil
	} else {
		go func() {
			_, err := e.Revoke(ctx, lease.ID)
			revoked <- err
		}()
	}
	_, err = c.Await(ctx, "leased."+Zone, dns.TypeA, Has("10.0.0.1"))
	changed := time.Now()
	if rerr := <-revoked; err == nil {
		err = rerr
	}
	if err != nil {
		return 0, err
	}
	select {
	case at := <-deleted:
		return changed.Sub(at), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("etcd told of no deletion: %w", ctx.Err())
	}
}

// Expiry measures etcd alone: how long after its last renewal, which is its grant here,
// a lease of some seconds is until etcd tells that what was under it is gone. The leases
// begin at moments that etcd's own look at them knows nothing of.
func Expiry(ctx context.Context, l *Lab, runs int) (Times, error) {
	return alone(ctx, l, runs, func(ctx context.Context, e *Etcd, key string) (time.Duration, error) { return e.expire(ctx, key) })
}

// Deletion measures etcd alone: how long after it was asked to delete a key it tells
// that it is gone. There are as many at a time as registrations in Crash.
func Deletion(ctx context.Context, l *Lab, runs int) (Times, error) {
	return alone(ctx, l, runs, func(ctx context.Context, e *Etcd, key string) (time.Duration, error) {
		return e.remove(ctx, key, time.Duration(runs)*checksEach/lanesUsual)
	})
}

// lanesUsual is how many instances are killed at a time, about.
const lanesUsual = 8

// alone measures an etcd that nobody else asks.
func alone(ctx context.Context, l *Lab, runs int, one func(context.Context, *Etcd, string) (time.Duration, error)) (Times, error) {
	e, err := l.Etcd(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	times, errs := make(Times, runs), make([]error, runs)
	var running sync.WaitGroup
	for i := range runs {
		running.Go(func() { times[i], errs[i] = one(ctx, e, fmt.Sprintf("alone%d", i)) })
	}
	running.Wait()
	return times, errors.Join(errs...)
}

// remove is one key of Deletion, deleted at any moment within a time.
func (e *Etcd) remove(ctx context.Context, key string, within time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, within+startTimeout)
	defer cancel()
	if _, err := e.Put(ctx, key, ""); err != nil {
		return 0, err
	}
	events := e.Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithFilterPut())
	select {
	case <-time.After(rand.N(within)):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	asked := time.Now()
	if _, err := e.Delete(ctx, key); err != nil {
		return 0, err
	}
	r, ok := <-events
	if !ok {
		return 0, fmt.Errorf("etcd tells of no deletion: %w", ctx.Err())
	}
	return time.Since(asked), r.Err()
}

// expire is one lease of Expiry.
func (e *Etcd) expire(ctx context.Context, key string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	events := e.Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithFilterPut())
	select {
	case <-time.After(rand.N(checksEach)):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	granted := time.Now()
	lease, err := e.Grant(ctx, leaseTTL)
	if err != nil {
		return 0, err
	}
	if _, err := e.Put(ctx, key, "", clientv3.WithLease(lease.ID)); err != nil {
		return 0, err
	}
	r, ok := <-events
	if !ok {
		return 0, fmt.Errorf("etcd tells of no lost lease: %w", ctx.Err())
	}
	return time.Since(granted), r.Err()
}
