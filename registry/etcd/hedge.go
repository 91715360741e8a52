package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

const (
	// hedgeDelay is how long a read may take before another member is asked too.
	hedgeDelay = 250 * time.Millisecond
	// hedgeTries is how many tries there are for each endpoint, of two and more. Others'
	// calls take their turns in between, so that tries in a row may go to one member.
	hedgeTries = 2
)

// hedged returns the first answer to a small read. While there is none another try is
// begun every hedgeDelay, and at once after one that failed, which the client sends to
// another member: one that is cut off without a connection's end delays it by hedgeDelay
// and not by callTimeout.
func hedged[T any](ctx context.Context, tries int, read func(context.Context) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // those that are late
	answers := make(chan answer, tries)
	next := time.NewTimer(0)
	defer next.Stop()
	for begun, failed := 0, 0; ; {
		select {
		case <-next.C:
			go func() {
				value, err := read(ctx)
				answers <- answer{value, err}
			}()
			if begun++; begun < tries {
				next.Reset(hedgeDelay)
			}
		case a := <-answers:
			decided := a.err == nil || errors.Is(a.err, rpctypes.ErrFutureRev) || errors.Is(a.err, rpctypes.ErrCompacted)
			if failed++; decided || failed == tries {
				return a.value, a.err
			}
			if begun < tries {
				next.Reset(0)
			}
		}
	}
}
