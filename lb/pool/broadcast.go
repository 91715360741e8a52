package pool

import "sync"

// broadcast wakes everybody who waits at that moment. Zero is ready.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{} // nil: nobody waits
}

// wait returns a channel that the next wake closes.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// wake closes what wait has returned. Without a waiter it costs a lock.
func (b *broadcast) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
