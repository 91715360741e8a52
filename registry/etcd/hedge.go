package etcd

import (
	"cmp"
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

// tries is how many there are of what is hedged.
func (c *Client) tries() int {
	if n := len(c.cfg.Endpoints); n > 1 {
		return n * hedgeTries
	}
	return 1
}

// hedged returns the first answer to a small request that may be made more than once:
// see hedgedBy.
func hedged[T any](ctx context.Context, tries int, ask func(context.Context) (T, error)) (T, error) {
	return hedgedBy(ctx, tries, hedgeDelay, ask, func(T) {})
}

// hedgedBy returns the first answer to a request that may be made more than once. While
// there is none another try is begun after each delay, and at once after one that failed,
// which the client sends to another member: one that is cut off without a connection's
// end costs the delay and no more. Answers that come too late are dropped.
func hedgedBy[T any](ctx context.Context, tries int, delay time.Duration, ask func(context.Context) (T, error), drop func(T)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // those that are late
	answers := make(chan answer)
	try := func() {
		value, err := ask(ctx)
		select {
		case answers <- answer{value, err}:
		case <-ctx.Done():
			if err == nil {
				drop(value)
			}
		}
	}
	next := time.NewTimer(0)
	defer next.Stop()
	var last error // of a try
	for begun, ended := 0, 0; ; {
		select {
		case <-ctx.Done():
			var none T
			return none, cmp.Or(last, ctx.Err())
		case <-next.C:
			go try()
			if begun++; begun < tries {
				next.Reset(delay)
			}
		case a := <-answers:
			if ended++; decided(a.err) || ended == tries {
				return a.value, a.err
			}
			last = a.err
			if begun < tries {
				next.Reset(0)
			}
		}
	}
}

// decided reports whether every member would answer so.
func decided(err error) bool {
	return err == nil || errors.Is(err, rpctypes.ErrFutureRev) || errors.Is(err, rpctypes.ErrCompacted) ||
		errors.Is(err, rpctypes.ErrLeaseNotFound)
}
