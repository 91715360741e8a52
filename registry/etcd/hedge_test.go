package etcd_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/musterdns/muster/registry/etcd"
)

func TestHedged(t *testing.T) {
	t.Parallel()
	const tries = 3
	silent := func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
	good := func(n int) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { return n, nil }
	}
	fails := func(err error) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { return 0, err }
	}
	broken := errors.New("the connection broke")
	for _, test := range []struct {
		name  string
		reads []func(context.Context) (int, error) // of the members in turn
		want  int
		err   error
		took  time.Duration
		begun int32
	}{
		{"the first answers", []func(context.Context) (int, error){good(1)}, 1, nil, 0, 1},
		{"two are cut off", []func(context.Context) (int, error){silent, silent, good(3)}, 3, nil, 2 * etcd.HedgeDelay, 3},
		{"one fails at once", []func(context.Context) (int, error){fails(broken), good(2)}, 2, nil, 0, 2},
		{"one fails, one is cut off", []func(context.Context) (int, error){fails(broken), silent, good(3)}, 3, nil, etcd.HedgeDelay, 3},
		{"all fail", []func(context.Context) (int, error){fails(broken), fails(broken), fails(broken)}, 0, broken, 0, 3},
		{"all are cut off", []func(context.Context) (int, error){silent, silent, silent}, 0, context.DeadlineExceeded, etcd.CallTimeout, 3},
		{"another store", []func(context.Context) (int, error){fails(rpctypes.ErrFutureRev), good(2)}, 0, rpctypes.ErrFutureRev, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), etcd.CallTimeout)
				defer cancel()
				var begun atomic.Int32
				since := time.Now()
				got, err := etcd.Hedged(ctx, tries, func(ctx context.Context) (int, error) {
					return test.reads[begun.Add(1)-1](ctx)
				})
				if got != test.want || !errors.Is(err, test.err) || time.Since(since) != test.took || begun.Load() != test.begun {
					t.Errorf("%d, %v after %s and %d tries, want %d, %v after %s and %d",
						got, err, time.Since(since), begun.Load(), test.want, test.err, test.took, test.begun)
				}
			})
		})
	}
}
