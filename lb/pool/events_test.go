package pool_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

func TestPool_Events(t *testing.T) {
	t.Run("tells what happened, in order, and resumes", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var got []string
			var last uint64
			done := make(chan struct{})
			go func() {
				defer close(done)
				for ev := range e.pool.Events(ctx, 0) {
					got = append(got, strings.TrimSpace(fmt.Sprintf("%d %s/%s %s>%s", ev.Kind, ev.Service, ev.Instance, ev.From, ev.To)))
					last = ev.Seq
				}
			}()
			synctest.Wait()
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1 check=tcp")})
			e.verdict("10.0.0.1", health.Status{State: health.Passing})
			e.verdict("10.0.0.1", health.Status{State: health.Failing})
			synctest.Wait()
			cancel()
			<-done
			want := []string{
				fmt.Sprintf("%d / not ready>fresh", pool.EventSource),
				fmt.Sprintf("%d web/a unknown>passing", pool.EventHealth),
				fmt.Sprintf("%d web/ unknown>normal", pool.EventService),
				fmt.Sprintf("%d web/a passing>failing", pool.EventHealth),
				fmt.Sprintf("%d web/ normal>fail-open", pool.EventService),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			e.apply(registry.Batch{Instances: insts("web/b 10.0.0.2")})
			for ev := range e.pool.Events(t.Context(), last) {
				if ev.Kind != pool.EventRegistered || ev.Instance != "b" || ev.Seq != last+1 {
					t.Errorf("resumed with %+v, want the registration of b", ev)
				}
				break
			}
		})
	})
	t.Run("a reader too slow gets a gap", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1")})
			var first uint64
			for ev := range e.pool.Events(t.Context(), 1) { // of another life
				if ev.Kind != pool.EventGap {
					t.Errorf("first event %+v, want a gap", ev)
				}
				first = ev.Seq
				break
			}
			for n := range pool.EventsMax + 10 {
				e.apply(registry.Batch{Instances: insts(fmt.Sprintf("web/a 10.0.0.1 w=%d", 2+n%2))})
			}
			n := 0
			for ev := range e.pool.Events(t.Context(), first) {
				if n == 0 && ev.Kind != pool.EventGap {
					t.Errorf("%+v, want a gap", ev)
				}
				if n++; n == pool.EventsMax+1 {
					break
				}
			}
			if e.pool.Counters().EventsLost == 0 {
				t.Error("the loss was not counted")
			}
		})
	})
}
