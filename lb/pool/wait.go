package pool

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/musterdns/muster/registry"
)

// waiter waits until a source's state at a revision is answered.
type waiter struct {
	source   registry.SourceID
	revision int64
	done     chan struct{} // closed by the writer
	left     atomic.Bool   // nobody waits any more
}

// WaitFor returns nil when the View has the source's state at revision or a
// later one: whoever wrote a record and waits for its revision sees its effect.
// Revision 0 waits for any complete state, be it from a snapshot.
func (p *Pool) WaitFor(ctx context.Context, source registry.SourceID, revision int64) error {
	w := &waiter{source: source, revision: revision, done: make(chan struct{})}
	err := p.ask(ctx, func() { p.w.waiters = append(p.w.waiters, w) })
	if err != nil {
		return fmt.Errorf("waiting for revision %d of source %d: %w", revision, source, err)
	}
	select {
	case <-w.done:
		return nil
	case <-p.stopped:
		return ErrStopped
	case <-ctx.Done():
		w.left.Store(true)
		return fmt.Errorf("waiting for revision %d of source %d: %w", revision, source, ctx.Err())
	}
}

// release lets go those whose revision has been published. The writer calls it
// after each round.
func (w *writer) release() {
	w.waiters = slices.DeleteFunc(w.waiters, func(q *waiter) bool {
		src := w.sources[q.source]
		if src != nil && src.asOf != 0 && src.revision >= q.revision {
			close(q.done)
			return true
		}
		return q.left.Load()
	})
}
