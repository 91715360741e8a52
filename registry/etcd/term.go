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

const (
	// renewals is how often a term is renewed in the time that its lease lives.
	renewals = 5
	// preferAfter is for how many lives of its lease a holder goes on beside a
	// candidate of a higher priority: one that comes and goes, as it fails and
	// is started anew, must not move the address each time.
	preferAfter = 3
)

// Errors that end a term.
var (
	errTermLost  = errors.New("the lease is lost")
	errOutranked = errors.New("a preferred candidate is there")
)

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

	priority uint8
	rivals   map[int64]time.Time // preferred candidates: since when keep has seen them

	mu       sync.Mutex
	deadline time.Time
	err      error // why it ended
}

// Candidate is who campaigns for a virtual address.
type Candidate struct {
	Value string        // for people to read
	TTL   time.Duration // of the lease
	// Priority decides among candidates, and a holder ends its term for one with
	// a higher priority that has been there for a while.
	Priority uint8
}

// Campaign waits until nobody holds the address and then makes this process its
// holder, for as long as the Term's lease is renewed, which the Term does by itself
// until Resign. It fails when etcd does, or with ctx.
//
// etcd lets a lease go no sooner than its time after it was asked for the last
// renewal, and the holder counts from before it asked: whoever is elected then
// is so after the holder's Deadline. Where the key was deleted by hand, the new
// Term's NotBefore is what was left of the lease that it was under.
func (s *Source) Campaign(ctx context.Context, address netip.Addr, c Candidate) (*Term, error) {
	raw := s.space.VIP(address)
	t, err := s.campaign(ctx, raw, c)
	if err != nil {
		return nil, fmt.Errorf("campaigning for %s: %w", raw, err)
	}
	return t, nil
}

func (s *Source) campaign(ctx context.Context, raw string, c Candidate) (*Term, error) {
	if c.TTL < LeaseMin || c.TTL > LeaseMax {
		return nil, fmt.Errorf("time to live %s: want %s to %s", c.TTL, LeaseMin, LeaseMax)
	}
	conn, err := s.client.dial()
	if err != nil {
		return nil, err
	}
	withdraw, err := s.announce(ctx, raw, c)
	if err != nil {
		return nil, err
	}
	defer withdraw()
	var last clientv3.LeaseID // of the holder before
	for waited := false; ; {
		state, err := s.client.look(ctx, conn, raw)
		if err != nil {
			return nil, err
		}
		if state.holder != nil {
			last, waited = clientv3.LeaseID(state.holder.Lease), false
			if err := awaitDeletion(ctx, conn, raw, state.revision+1, c.TTL/renewals); err != nil {
				return nil, err
			}
			continue
		}
		if rank := state.rank(c.Priority); rank > 0 && !waited {
			waited = true
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Duration(min(rank, deferralsMax)) * deferral):
			}
			continue
		}
		t, err := s.elect(ctx, conn, raw, c, last)
		if t != nil || err != nil {
			return t, err
		}
	}
}

// Resume goes on with the term of a process that has handed it over to this one
// (Token, Release). It is nil where that term has ended. It fails when etcd does.
func (s *Source) Resume(ctx context.Context, address netip.Addr, token string, c Candidate) (*Term, error) {
	t := &Term{source: s, raw: s.space.VIP(address), priority: c.Priority, ttl: c.TTL}
	if _, err := fmt.Sscanf(token, tokenFormat, &t.id, &t.created); err != nil {
		return nil, fmt.Errorf("resuming the term of %s: %q: %w", t.raw, token, err)
	}
	conn, err := s.client.dial()
	if err != nil {
		return nil, err
	}
	err = t.renew(ctx, conn)
	if errors.Is(err, errTermLost) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("resuming the term of %s: %w", t.raw, err)
	}
	t.begin(ctx, conn)
	return t, nil
}

// tokenFormat is a lease and the revision of the key under it.
const tokenFormat = "%x-%d"

// Token is what Resume needs to know.
func (t *Term) Token() string { return fmt.Sprintf(tokenFormat, int64(t.id), t.created) }

// awaitDeletion returns when a key is deleted at a revision or later, and after a while
// in any case: the member that is watched may be cut off, and then only a read tells.
func awaitDeletion(ctx context.Context, conn *clientv3.Client, raw string, revision int64, while time.Duration) error {
	short, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), while)
	defer cancel()
	for resp := range conn.Watch(short, raw, clientv3.WithRev(revision), clientv3.WithFilterPut()) {
		if err := resp.Err(); err != nil {
			return err
		}
		if len(resp.Events) > 0 {
			return nil
		}
	}
	if short.Err() != nil {
		return ctx.Err()
	}
	return errors.New("the watch has ended")
}

// elect tries to become the holder; nil: another was faster.
func (s *Source) elect(ctx context.Context, conn *clientv3.Client, raw string, c Candidate, last clientv3.LeaseID) (*Term, error) {
	asked := time.Now()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	id, ttl, err := s.client.grant(call, conn, c.TTL)
	if err != nil {
		return nil, fmt.Errorf("asking for a lease: %w", err)
	}
	t := &Term{source: s, raw: raw, id: id, priority: c.Priority, ttl: ttl, deadline: asked.Add(ttl)}
	if t.created, err = s.client.take(call, conn, raw, c.Value, id); t.created != 0 {
		err = t.wait(call, conn, last)
	}
	if err != nil || t.created == 0 {
		giveBack, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		_ = s.client.revoke(giveBack, conn, id) // else it expires
		return nil, err
	}
	t.begin(ctx, conn)
	return t, nil
}

// take makes a key under a lease unless it is there, and returns the revision at which
// that was done; 0: another's is there. To try twice is as good as once: what the first
// has made is under the lease, and once that has ended nothing is made.
func (c *Client) take(ctx context.Context, conn *clientv3.Client, raw, value string, id clientv3.LeaseID) (created int64, err error) {
	resp, err := hedged(ctx, c.tries(), func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return conn.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(raw), "=", 0)).
			Then(clientv3.OpPut(raw, value, clientv3.WithLease(id))).Else(clientv3.OpGet(raw)).Commit()
	})
	switch {
	case err != nil:
		return 0, err
	case resp.Succeeded:
		return resp.Header.Revision, nil
	}
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		if kv.Lease == int64(id) {
			return kv.CreateRevision, nil
		}
	}
	return 0, nil
}

// begin starts the renewals, which outlive ctx.
func (t *Term) begin(ctx context.Context, conn *clientv3.Client) {
	t.rivals = map[int64]time.Time{}
	t.changed, t.ended = make(chan struct{}, 1), make(chan struct{})
	keep, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	go t.keep(keep, conn)
}

// wait has the term begin when the lease of the holder before is over, if it is
// not: then its key was deleted by another.
func (t *Term) wait(ctx context.Context, conn *clientv3.Client, last clientv3.LeaseID) error {
	if last == 0 {
		return nil
	}
	left, err := t.source.client.timeToLive(ctx, conn, last)
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
		case errors.Is(err, errOutranked):
			t.source.client.log.Info("a term ends for a preferred candidate", "key", t.raw)
			return
		case errors.Is(err, errTermLost) || !time.Now().Before(t.Deadline()):
			t.source.client.log.Warn("a term is over", "key", t.raw, "error", err)
			t.mu.Lock()
			t.err = err
			t.mu.Unlock()
			return
		}
	}
}

// renew moves the deadline if the key is still there and ours.
func (t *Term) renew(ctx context.Context, conn *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 2*t.ttl/renewals)
	defer cancel()
	asked := time.Now()
	ttl, err := t.source.client.renew(ctx, conn, t.id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return errTermLost
	}
	if err != nil {
		return err
	}
	state, err := t.source.client.look(ctx, conn, t.raw)
	if err != nil {
		return err
	}
	if state.holder == nil || state.holder.CreateRevision != t.created {
		return fmt.Errorf("%w: the key was deleted", errTermLost)
	}
	t.mu.Lock()
	t.deadline = asked.Add(ttl)
	t.mu.Unlock()
	if t.outranked(state, asked) {
		return errOutranked
	}
	return nil
}

// outranked reports whether one of the candidates is preferred and has been there
// for long enough.
func (t *Term) outranked(s contest, now time.Time) bool {
	rivals := map[int64]time.Time{}
	for _, c := range s.candidates {
		if c.priority <= t.priority {
			continue
		}
		since, known := t.rivals[c.created]
		if !known {
			since = now
		}
		if now.Sub(since) >= preferAfter*t.ttl {
			return true
		}
		rivals[c.created] = since
	}
	t.rivals = rivals
	return false
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

// Err is why the Term has ended, once Changed is closed: nil if it was to be, by
// Resign or Release, or because a preferred candidate was there.
func (t *Term) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Release ends the renewals and leaves the lease to the process that has resumed
// the Term, or to its end.
func (t *Term) Release() {
	t.cancel()
	<-t.ended
}

// Resign ends the Term: another can be elected from here on.
func (t *Term) Resign(ctx context.Context) error {
	t.Release()
	conn, err := t.source.client.dial()
	if err != nil {
		return err
	}
	if err := t.source.client.revoke(ctx, conn, t.id); err != nil {
		return fmt.Errorf("giving back the lease of %s: %w", t.raw, err)
	}
	return nil
}
