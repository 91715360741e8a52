package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// renewals is how often a term is renewed in the time that its lease lives.
const renewals = 5

// errTermLost ends a term whose lease or key is gone.
var errTermLost = errors.New("the lease is lost")

// Term is the time in which this process holds a virtual address, alone of all
// that campaign for it. It is safe for concurrent use.
type Term struct {
	source  *Source
	raw     string
	id      clientv3.LeaseID
	created int64 // the key's revision: another one is another's
	ttl     time.Duration
	before  time.Time
	changed chan struct{} // 1-slot; keep closes it
	cancel  context.CancelFunc
	ended   chan struct{} // closed when keep has returned

	mu       sync.Mutex
	deadline time.Time
}

// Campaign waits until nobody holds the address and then makes this process its
// holder, for as long as the Term's lease of ttl is renewed, which the Term does
// by itself until Resign. The value is for people to read. It fails when etcd
// does, or with ctx.
//
// etcd lets a lease go no sooner than its time after it was asked for the last
// renewal, and the holder counts from before it asked: whoever is elected then
// is so after the holder's Deadline. Where the key was deleted by hand, the new
// Term's NotBefore is what was left of the lease that it was under.
func (s *Source) Campaign(ctx context.Context, address netip.Addr, value string, ttl time.Duration) (*Term, error) {
	raw := s.space.VIP(address)
	if ttl < LeaseMin || ttl > LeaseMax {
		return nil, fmt.Errorf("campaigning for %s: time to live %s: want %s to %s", raw, ttl, LeaseMin, LeaseMax)
	}
	conn, err := s.client.dial()
	if err != nil {
		return nil, err
	}
	var last clientv3.LeaseID // of the holder before
	for {
		resp, err := conn.Get(ctx, raw)
		if err != nil {
			return nil, fmt.Errorf("campaigning for %s: %w", raw, err)
		}
		if len(resp.Kvs) > 0 {
			last = clientv3.LeaseID(resp.Kvs[0].Lease)
			if err := awaitDeletion(ctx, conn, raw, resp.Header.Revision+1); err != nil {
				return nil, fmt.Errorf("campaigning for %s: %w", raw, err)
			}
			continue
		}
		t, err := s.elect(ctx, conn, raw, value, ttl, last)
		if err != nil {
			return nil, fmt.Errorf("campaigning for %s: %w", raw, err)
		}
		if t != nil {
			return t, nil
		}
	}
}

// awaitDeletion returns when a key is deleted at a revision or later.
func awaitDeletion(ctx context.Context, conn *clientv3.Client, raw string, revision int64) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range conn.Watch(ctx, raw, clientv3.WithRev(revision), clientv3.WithFilterPut()) {
		if err := resp.Err(); err != nil {
			return err
		}
		if len(resp.Events) > 0 {
			return nil
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("the watch has ended")
}

// elect tries to become the holder; nil: another was faster.
func (s *Source) elect(ctx context.Context, conn *clientv3.Client, raw, value string, ttl time.Duration, last clientv3.LeaseID) (*Term, error) {
	asked := time.Now()
	lease, err := conn.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return nil, fmt.Errorf("asking for a lease: %w", err)
	}
	t := &Term{
		source: s, raw: raw, id: lease.ID, ttl: time.Duration(lease.TTL) * time.Second,
		changed: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	t.deadline = asked.Add(t.ttl)
	won, err := conn.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(raw), "=", 0)).
		Then(clientv3.OpPut(raw, value, clientv3.WithLease(lease.ID))).Commit()
	if err == nil && won.Succeeded {
		t.created = won.Header.Revision
		err = t.wait(ctx, conn, last)
	}
	if err != nil || !won.Succeeded {
		giveBack, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		_, _ = conn.Revoke(giveBack, lease.ID) // else it expires
		return nil, err
	}
	keep, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	go t.keep(keep, conn)
	return t, nil
}

// wait has the term begin when the lease of the holder before is over, if it is
// not: then its key was deleted by another.
func (t *Term) wait(ctx context.Context, conn *clientv3.Client, last clientv3.LeaseID) error {
	if last == 0 {
		return nil
	}
	left, err := conn.TimeToLive(ctx, last)
	if err != nil {
		return fmt.Errorf("asking for the lease of the holder before: %w", err)
	}
	if left.TTL > 0 {
		t.before = time.Now().Add(time.Duration(left.TTL+1) * time.Second) // TTL is rounded down
	}
	return nil
}

// keep renews the lease until it is lost or ctx is done.
func (t *Term) keep(ctx context.Context, conn *clientv3.Client) {
	defer close(t.ended)
	defer close(t.changed)
	pace := time.NewTicker(t.ttl / renewals)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		err := t.renew(ctx, conn)
		switch {
		case err == nil:
			select {
			case t.changed <- struct{}{}:
			default:
			}
		case errors.Is(err, errTermLost) || !time.Now().Before(t.Deadline()):
			t.source.client.log.Warn("a term is over", "key", t.raw, "error", err)
			return
		}
	}
}

// renew moves the deadline if the key is still there and ours.
func (t *Term) renew(ctx context.Context, conn *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 2*t.ttl/renewals)
	defer cancel()
	asked := time.Now()
	alive, err := conn.KeepAliveOnce(ctx, t.id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return errTermLost
	}
	if err != nil {
		return err
	}
	resp, err := conn.Get(ctx, t.raw, clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	if len(resp.Kvs) == 0 || resp.Kvs[0].CreateRevision != t.created {
		return fmt.Errorf("%w: the key was deleted", errTermLost)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deadline = asked.Add(time.Duration(alive.TTL) * time.Second)
	return nil
}

// NotBefore is when who held the address before has lost it at the latest; zero:
// it has.
func (t *Term) NotBefore() time.Time { return t.before }

// Deadline is until when nobody else can be elected.
func (t *Term) Deadline() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.deadline
}

// Changed tells that Deadline has moved (1-slot), and is closed when the Term has
// ended.
func (t *Term) Changed() <-chan struct{} { return t.changed }

// Resign ends the Term: another can be elected from here on.
func (t *Term) Resign(ctx context.Context) error {
	t.cancel()
	<-t.ended
	conn, err := t.source.client.dial()
	if err != nil {
		return err
	}
	if _, err := conn.Revoke(ctx, t.id); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("giving back the lease of %s: %w", t.raw, err)
	}
	return nil
}
