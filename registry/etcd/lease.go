package etcd

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/registry"
)

// LeaseMin and LeaseMax bound the time to live of a lease. etcd itself grants
// no less than one and a half of its election timeout (2 s by default).
const (
	LeaseMin = time.Second
	LeaseMax = 24 * time.Hour
)

const (
	// renewalsOfHeld is how often a record's lease is renewed in its time to live. One
	// at a time, by whichever member answers: the client's own stream stays with one
	// member, and a lease that is short is lost while that one is cut off.
	renewalsOfHeld = 3
	// retriesOfHeld bounds how often that is tried again in the time.
	retriesOfHeld = 10
)

// memberSuffixBytes is the randomness in a member's name.
const memberSuffixBytes = 5

// held is a record being held. One goroutine, keep, owns the lease.
type held struct {
	source *Source
	raw    string
	ttl    time.Duration
	lost   chan struct{} // 1-slot
	cancel context.CancelFunc
	ended  chan struct{} // closed when keep has returned

	mu    sync.Mutex
	id    clientv3.LeaseID // 0 while the lease is lost
	value []byte
	dirty bool // value is newer than what etcd has
}

// Hold writes the record under a lease of its own and keeps that alive, at a
// third of its time to live, until Close. It fails when the first write fails
// within ctx; after that it goes on by itself. When a lost lease is made
// again while the record is still there, the record keeps the value it has
// (another may have changed its weight), unless Update changed it meanwhile.
func (s *Source) Hold(ctx context.Context, k registry.Key, value []byte, ttl time.Duration) (registry.Lease, error) {
	raw, err := s.raw(k)
	if err != nil {
		return nil, err
	}
	return s.hold(ctx, raw, value, ttl)
}

// hold is Hold for a key as etcd has it.
func (s *Source) hold(ctx context.Context, raw string, value []byte, ttl time.Duration) (registry.Lease, error) {
	if ttl < LeaseMin || ttl > LeaseMax {
		return nil, fmt.Errorf("holding %s: time to live %s: want %s to %s", raw, ttl, LeaseMin, LeaseMax)
	}
	if len(value) > registry.ValueMax {
		return nil, fmt.Errorf("holding %s: the value has %d bytes: want at most %d", raw, len(value), registry.ValueMax)
	}
	h := &held{
		source: s, raw: raw, ttl: ttl, value: value, dirty: true,
		lost: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	if err := h.grant(ctx); err != nil {
		return nil, err
	}
	keepCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h.cancel = cancel
	go h.keep(keepCtx)
	return h, nil
}

// grant makes a lease and puts the record under it.
func (h *held) grant(ctx context.Context) error {
	conn, err := h.source.client.dial()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	id, _, err := h.source.client.grant(ctx, conn, h.ttl)
	if err != nil {
		return fmt.Errorf("holding %s: asking for a lease: %w", h.raw, h.source.client.cause.explain(err))
	}
	put := clientv3.OpPut(h.raw, string(h.value), clientv3.WithLease(id))
	there := put
	if !h.dirty {
		there = clientv3.OpPut(h.raw, "", clientv3.WithLease(id), clientv3.WithIgnoreValue())
	}
	exists := clientv3.Compare(clientv3.CreateRevision(h.raw), ">", 0)
	if _, err := conn.Txn(ctx).If(exists).Then(there).Else(put).Commit(); err != nil {
		return fmt.Errorf("holding %s: %w", h.raw, err)
	}
	h.id, h.dirty = id, false
	return nil
}

// keep keeps the lease alive and makes it again when it is lost, until ctx
// ends or the client is closed.
func (h *held) keep(ctx context.Context) {
	defer close(h.ended)
	client := h.source.client
	for {
		if err := h.keepAlive(ctx); errors.Is(err, errClosed) || ctx.Err() != nil {
			return
		}
		h.mu.Lock()
		h.id = 0
		h.mu.Unlock()
		client.log.Warn("a lease was lost and is made again", "key", h.raw)
		select {
		case h.lost <- struct{}{}:
		default:
		}
		for again := true; again; {
			call, cancel := context.WithTimeout(ctx, callTimeout)
			err := h.grant(call)
			cancel()
			again = err != nil
			if errors.Is(err, errClosed) || again && client.retryWait(ctx) != nil {
				return
			}
		}
	}
}

// keepAlive renews the lease, and returns when it is lost, or could not be renewed for
// so long that it may be, or ctx has ended.
func (h *held) keepAlive(ctx context.Context) error {
	client := h.source.client
	id, until := h.lease(), time.Now().Add(h.ttl)
	due := time.NewTimer(h.ttl / renewalsOfHeld)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due.C:
		}
		conn, err := client.dial()
		if err != nil {
			return err
		}
		asked := time.Now()
		call, cancel := context.WithTimeout(ctx, callTimeout)
		_, err = client.renew(call, conn, id)
		cancel()
		switch {
		case err == nil:
			until = asked.Add(h.ttl)
			due.Reset(h.ttl / renewalsOfHeld)
			continue
		case errors.Is(err, rpctypes.ErrLeaseNotFound) || !time.Now().Before(until):
			return err
		}
		client.nudge()
		due.Reset(min(retryInterval, h.ttl/retriesOfHeld))
	}
}

// Update replaces the held value. While the lease is lost it is kept and
// written with the next one.
func (h *held) Update(ctx context.Context, value []byte) error {
	if len(value) > registry.ValueMax {
		return fmt.Errorf("updating %s: the value has %d bytes: want at most %d", h.raw, len(value), registry.ValueMax)
	}
	conn, err := h.source.client.dial()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.value, h.dirty = value, true
	if h.id == 0 {
		return nil
	}
	if _, err := conn.Put(ctx, h.raw, string(value), clientv3.WithLease(h.id)); err != nil {
		return fmt.Errorf("updating %s: %w", h.raw, err)
	}
	h.dirty = false
	return nil
}

// Lost receives a value each time the lease was found lost; 1-slot.
func (h *held) Lost() <-chan struct{} { return h.lost }

// Close ends the keeping and deletes the record, if it is still under the lease. That
// is not revoked: while it lives, who watches can tell that the record was not lost
// (lost.go). A second call does nothing.
func (h *held) Close(ctx context.Context) error {
	id := h.stop()
	if id == 0 {
		return nil
	}
	conn, err := h.source.client.dial()
	if err != nil {
		return err
	}
	// Whoever registers the same meanwhile has another lease.
	ours := clientv3.Compare(clientv3.LeaseValue(h.raw), "=", id)
	if _, err := hedged(ctx, h.source.client.tries(), func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return conn.Txn(ctx).If(ours).Then(clientv3.OpDelete(h.raw)).Commit()
	}); err != nil {
		return fmt.Errorf("deleting %s: %w", h.raw, err)
	}
	return nil
}

// stop ends the keeping and returns the lease; 0 if there is none.
func (h *held) stop() clientv3.LeaseID {
	h.cancel()
	<-h.ended
	h.mu.Lock()
	defer h.mu.Unlock()
	id := h.id
	h.id = 0
	return id
}

// lease is the lease that the record is under at present; 0: it is lost.
func (h *held) lease() clientv3.LeaseID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.id
}

// Revoke ends the keeping and the lease, with every record under it. A second
// call does nothing.
func (h *held) Revoke(ctx context.Context) error {
	id := h.stop()
	if id == 0 {
		return nil
	}
	conn, err := h.source.client.dial()
	if err != nil {
		return err
	}
	if err := h.source.client.revoke(ctx, conn, id); err != nil {
		return fmt.Errorf("giving back the lease of %s: %w", h.raw, err)
	}
	return nil
}

// Register holds an instance: it is registered when Register returns and for
// as long as the Lease is kept and this process lives, and gone at most ttl
// after the process has ended. To change it, Update the Lease with what
// registry.EncodeInstance makes.
func (s *Source) Register(ctx context.Context, in registry.Instance, ttl time.Duration) (registry.Lease, error) {
	value, err := registry.EncodeInstance(in)
	if err != nil {
		return nil, fmt.Errorf("registering %q in %q: %w", in.ID, in.Service, err)
	}
	return s.Hold(ctx, registry.Key{Source: s.id, Kind: registry.KindInstance, Service: in.Service, Name: in.ID}, value, ttl)
}

// NewMemberName makes the name of a Muster server among the members from its
// own: with a random suffix, since two servers on one host, or one restarted
// before its lease ran out, must not share a key.
func NewMemberName(host string) string {
	suffix := make([]byte, memberSuffixBytes)
	rand.Read(suffix) // never fails (crypto/rand)
	return memberName(host) + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(suffix))
}

// HoldMember holds the record of a Muster server, whose name NewMemberName has
// made.
func (s *Source) HoldMember(ctx context.Context, m registry.Member, ttl time.Duration) (registry.Lease, error) {
	value, err := registry.EncodeMember(m)
	if err != nil {
		return nil, fmt.Errorf("becoming member %q: %w", m.Name, err)
	}
	return s.Hold(ctx, registry.Key{Source: s.id, Kind: registry.KindMember, Name: m.Name}, value, ttl)
}

// memberName makes a label of a host's name: its first label, with what a
// label cannot hold replaced, and room for the suffix.
func memberName(host string) string {
	const sizeMax = 63 - 1 - memberSuffixBytes*8/5
	first, _, _ := strings.Cut(strings.ToLower(host), ".")
	label := strings.Trim(strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, first), "-")
	if label == "" {
		return "muster"
	}
	return strings.Trim(label[:min(len(label), sizeMax)], "-")
}
