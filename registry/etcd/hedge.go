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

// tries is how many there are of what is hedged.
func (c *Client) tries() int {
	if n := len(c.cfg.Endpoints); n > 1 {
		return n * hedgeTries
	}
	return 1
}

// hedged returns the first answer to a small request that may be made more than once.
// While there is none another try is begun every hedgeDelay, and at once after one that
// failed, which the client sends to another member: one that is cut off without a
// connection's end delays it by hedgeDelay and not by callTimeout.
func hedged[T any](ctx context.Context, tries int, ask func(context.Context) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // those that are late
	answers := make(chan answer, tries)
	next := time.NewTimer(0)
	defer next.Stop()
	for begun, ended := 0, 0; ; {
		select {
		case <-next.C:
			go func() {
				value, err := ask(ctx)
				answers <- answer{value, err}
			}()
			if begun++; begun < tries {
				next.Reset(hedgeDelay)
			}
		case a := <-answers:
			if ended++; decided(a.err) || ended == tries {
				return a.value, a.err
			}
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
