package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/registry"
)

// heldMax bounds the registrations that one server holds for clients of its
// API. Each is a lease that is kept alive; sites with more register by the
// command line or the Go client, which hold their own.
const heldMax = 10_000

// sweepInterval is how often leases without a heartbeat are looked for, and so
// how late beyond its time to live a registration may go.
const sweepInterval = 500 * time.Millisecond

// holds are the registrations made over the API with a time to live: this
// server keeps their leases while heartbeats come.
type holds struct {
	log *slog.Logger

	mu sync.Mutex // guards m and what its entries hold
	m  map[registry.Key]*held
}

// held is one registration. A nil lease is one being made.
type held struct {
	lease registry.Lease
	ttl   time.Duration
	due   time.Time // the latest time for the next heartbeat
}

func newHolds(log *slog.Logger) *holds {
	return &holds{log: log, m: make(map[registry.Key]*held)}
}

// put registers value under k for as long as beats come, or replaces the value
// of what is held already.
func (h *holds) put(ctx context.Context, hold registry.Holder, k registry.Key, value []byte, ttl time.Duration) error {
	h.mu.Lock()
	old, again := h.m[k]
	switch {
	case again && old.lease == nil:
		h.mu.Unlock()
		return &api.Error{Status: http.StatusConflict, Message: "the instance is being registered by another request", Mend: "try again"}
	case again && old.ttl == ttl:
		h.mu.Unlock()
		if err := old.lease.Update(ctx, value); err != nil {
			return fmt.Errorf("registering: %w", err)
		}
		h.beat(k)
		return nil
	case !again && len(h.m) >= heldMax:
		h.mu.Unlock()
		return &api.Error{
			Status: http.StatusServiceUnavailable, Message: fmt.Sprintf("this server holds %d registrations already", heldMax),
			Mend: "register with `muster register` or the Go client, which hold their own lease",
		}
	}
	h.m[k] = &held{}
	h.mu.Unlock()

	if again { // another time to live needs another lease
		if err := old.lease.Close(ctx); err != nil {
			h.log.Warn("giving back a lease failed; it expires by itself", "service", k.Service, "instance", k.Name, "error", err)
		}
	}
	lease, err := hold.Hold(ctx, k, value, ttl)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		delete(h.m, k)
		return fmt.Errorf("registering: %w", err)
	}
	h.m[k] = &held{lease: lease, ttl: ttl, due: time.Now().Add(ttl)}
	return nil
}

// beat notes a heartbeat and returns when the next is due; false when the
// instance is not held here.
func (h *holds) beat(k registry.Key) (time.Duration, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.m[k]
	if !ok || e.lease == nil {
		return 0, false
	}
	e.due = time.Now().Add(e.ttl)
	return e.ttl, true
}

// drop ends a registration if it is held here, by closing its lease or revoking
// it; it reports whether it was.
func (h *holds) drop(ctx context.Context, k registry.Key, end func(registry.Lease, context.Context) error) (bool, error) {
	h.mu.Lock()
	e, ok := h.m[k]
	if !ok || e.lease == nil {
		h.mu.Unlock()
		return false, nil
	}
	delete(h.m, k)
	h.mu.Unlock()
	if err := end(e.lease, ctx); err != nil {
		return true, fmt.Errorf("giving back the lease: %w", err)
	}
	return true, nil
}

// run ends registrations whose heartbeats have stopped, until ctx ends. What
// is held then is left to expire: its instances live, and will find another
// server to register with.
func (h *holds) run(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, k := range h.overdue(now) {
				if _, err := h.drop(ctx, k, registry.Lease.Revoke); err != nil && ctx.Err() == nil {
					h.log.Warn("ending a registration without heartbeats failed; its lease expires by itself",
						"service", k.Service, "instance", k.Name, "error", err)
				}
			}
		}
	}
}

// overdue returns the registrations whose heartbeat did not come in time.
func (h *holds) overdue(now time.Time) []registry.Key {
	h.mu.Lock()
	defer h.mu.Unlock()
	var keys []registry.Key
	for k, e := range h.m {
		if e.lease != nil && now.After(e.due) {
			keys = append(keys, k)
		}
	}
	return keys
}
