package pool_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

func TestPool_Sink_reset(t *testing.T) {
	t.Run("a complete state is applied as a difference, when its last page has come", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1", "db/a 10.0.0.2", "old/a 10.0.0.3")})
			web, db := e.find("web"), e.find("db")
			serial := e.pool.View().Source(1).Serial()
			e.apply(registry.Batch{Reset: true, More: true, Instances: insts("db/b 10.0.0.4")})
			if e.find("old") == nil || e.find("db") != db {
				t.Fatal("a page that is not the last changed the view")
			}
			e.apply(registry.Batch{Instances: insts("web/a 10.0.0.1", "db/a 10.0.0.2")})
			if e.find("web") != web {
				t.Error("web was published anew, though nothing of it changed")
			}
			if e.find("old") != nil || e.find("db").Len() != 2 {
				t.Error("the state was not applied")
			}
			if got := e.pool.View().Source(1).Serial(); int32(got-serial) <= 0 {
				t.Errorf("serial %d after %d: it must rise", got, serial)
			}
		})
	})
	t.Run("the same state raises no serial", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1")})
			serial, changed := e.pool.View().Source(1).Serial(), e.pool.Published()
			e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1")})
			if got := e.pool.View().Source(1).Serial(); got != serial {
				t.Errorf("serial %d, want %d", got, serial)
			}
			if closed(changed) {
				t.Error("it was published anew")
			}
		})
	})
	t.Run("the sender may reuse the batch at once", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			b := registry.Batch{Source: 1, Reset: true, Instances: insts("web/a 10.0.0.1 tags=v1")}
			if err := e.sink(b); err != nil {
				t.Fatal(err)
			}
			b.Instances[0].Tags[0], b.Instances[0] = "v2", registry.Instance{}
			e.wait()
			if s := e.find("web"); s == nil || s.Filter(pool.FilterTag, []byte("v1"), false) == nil {
				t.Error("what was sunk has changed with the sender's slice")
			}
		})
	})
	t.Run("a source that is not configured is counted", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			if err := e.sink(registry.Batch{Source: 9, Reset: true}); err != nil {
				t.Fatal(err)
			}
			e.wait()
			if n := e.pool.Counters().UnknownSource; n != 1 {
				t.Errorf("unknown sources: %d, want 1", n)
			}
		})
	})
	t.Run("after Run a sink fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, stop := start(t, pool.Config{Settings: oneSource})
			stop()
			var err error
			for range 100 { // what the queue still takes is lost with the pool
				if err = e.sink(registry.Batch{Source: 1}); err != nil {
					break
				}
			}
			if !errors.Is(err, pool.ErrStopped) {
				t.Errorf("error %v, want ErrStopped", err)
			}
			if _, err := e.pool.Status(t.Context()); !errors.Is(err, pool.ErrStopped) {
				t.Errorf("Status: error %v, want ErrStopped", err)
			}
		})
	})
}

func TestPool_Sink_freshness(t *testing.T) {
	type want struct {
		f   pool.Freshness
		age uint32
	}
	check := func(t *testing.T, e *env, w want) {
		t.Helper()
		if f, age := e.pool.View().Source(1).Freshness(time.Now().UnixNano()); f != w.f || age != w.age {
			t.Errorf("%s, %d s old; want %s, %d s", f, age, w.f, w.age)
		}
	}
	settings := oneSource
	settings.MaxStale = time.Minute
	bubble(t, pool.Config{Settings: settings}, func(t *testing.T, e *env) {
		check(t, e, want{pool.NotReady, 0})
		taken := time.Now().Add(-20 * time.Second)
		e.apply(registry.Batch{Reset: true, Snapshot: true, AsOf: taken, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2")})
		check(t, e, want{pool.Stale, 20})
		web := e.find("web")
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1", "web/b 10.0.0.2")})
		check(t, e, want{pool.Fresh, 0})
		if e.find("web") != web {
			t.Error("the real state replaced the snapshot's equal service")
		}
		e.apply(registry.Batch{Reset: true, Snapshot: true, AsOf: taken})
		check(t, e, want{pool.Fresh, 0})
		if e.find("web") == nil {
			t.Error("a snapshot that came late was applied")
		}
		time.Sleep(11 * time.Second)
		check(t, e, want{pool.Stale, 11})
		e.apply(registry.Batch{}) // a proof and nothing else
		check(t, e, want{pool.Fresh, 0})
		time.Sleep(61 * time.Second)
		check(t, e, want{pool.Expired, 61})
		st, err := e.pool.Status(t.Context())
		if err != nil || len(st) != 1 || !st[0].Stale || st[0].Age != 61*time.Second || st[0].Instances != 2 {
			t.Errorf("status %+v, error %v", st, err)
		}
	})
}

func TestPool_Run_conflicts(t *testing.T) {
	bubble(t, pool.Config{Settings: pool.Settings{Sources: []pool.Source{{ID: 1, Zone: zone, Reserved: []string{"ns1"}}}}}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web.prod/a 10.0.0.1", "prod/b 10.0.0.2", "ns1/a 10.0.0.9")})
		if s := e.find("ns1"); s != nil {
			t.Error("a service has the name server's name")
		}
		if s := e.find("web.prod"); s == nil || s.Ancestor() {
			t.Fatal("web.prod is not there")
		}
		e.apply(registry.Batch{Instances: insts("prod/web 10.0.0.3")})
		if e.find("web.prod") != nil {
			t.Error("web.prod is answered beside the instance web of prod")
		}
		problems, _, err := e.pool.Problems(t.Context())
		if err != nil || len(problems) != 2 || problems[1].RawKey != "service web.prod" {
			t.Errorf("problems %+v (error %v), want ns1 and web.prod", problems, err)
		}
		e.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindInstance, Service: "prod", Name: "web"}}})
		if s := e.find("web.prod"); s == nil || s.Ancestor() || s.Len() != 1 {
			t.Error("web.prod did not come back")
		}
		e.apply(registry.Batch{Deleted: []registry.Key{{Source: 1, Kind: registry.KindInstance, Service: "prod", Name: "b"}}})
		if s := e.find("prod"); s == nil || !s.Ancestor() {
			t.Error("prod is no ancestor after its last instance went")
		}
	})
}

func TestPool_Problems(t *testing.T) {
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		bad := registry.Problem{RawKey: "/muster/v1/x", Reason: "not JSON", Mend: "write JSON", Revision: 3}
		keys := func() string {
			list, omitted, err := e.pool.Problems(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, p := range list {
				out = append(out, p.RawKey)
			}
			return fmt.Sprint(out, omitted)
		}
		e.apply(registry.Batch{Reset: true, Problems: []registry.Problem{bad, {RawKey: "/muster/v1/y"}}})
		if got := keys(); got != "[/muster/v1/x /muster/v1/y] 0" {
			t.Errorf("problems %s", got)
		}
		e.apply(registry.Batch{Mended: []string{"/muster/v1/y"}})
		if got := keys(); got != "[/muster/v1/x] 0" {
			t.Errorf("problems after mending %s", got)
		}
		var many []registry.Problem
		for i := range pool.ProblemsMax + 5 {
			many = append(many, registry.Problem{RawKey: fmt.Sprintf("/k%04d", i)})
		}
		e.apply(registry.Batch{Reset: true, Problems: many})
		if list, omitted, err := e.pool.Problems(t.Context()); err != nil || len(list) != pool.ProblemsMax || omitted != 5 {
			t.Errorf("%d problems, %d omitted, error %v; want %d and 5", len(list), omitted, err, pool.ProblemsMax)
		}
		// Fields that are passed over, however many, hide no record that cannot be used.
		many = nil
		for i := range pool.ProblemsMax {
			many = append(many, registry.Problem{RawKey: fmt.Sprintf("/k%04d", i), Used: true})
		}
		e.apply(registry.Batch{Reset: true, Problems: many})
		e.apply(registry.Batch{Problems: []registry.Problem{bad, {RawKey: "/k0000"}}})
		list, omitted, err := e.pool.Problems(t.Context())
		if err != nil || len(list) != pool.ProblemsMax+1 || omitted != 0 || list[0].Used || list[len(list)-1].RawKey != bad.RawKey {
			t.Errorf("%d problems, %d omitted, error %v; want %d, the first and the last not used", len(list), omitted, err, pool.ProblemsMax+1)
		}
	})
}

func TestPool_State(t *testing.T) {
	t.Run("what it yields makes the same state again", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			full := inst("web/a 10.0.0.1 fd00::1 w=3 p=1 tags=v1,v2 zone=eu ttl=3 named=http,https check=http")
			full.Meta = map[string]string{"k": "v", "long": strings.Repeat("x", 600), "a=b": "c"}
			full.Region, full.Leased, full.Revision = "r", true, 9
			full.Checks[0].Interval, full.Checks[0].Path = time.Second, "/x"
			b := registry.Batch{
				Reset: true, Instances: []registry.Instance{full, inst("web/b fd00::2 10.0.0.2")},
				Services: []registry.Service{{Name: "web", Policy: "hash", Meta: map[string]string{"a": "b"}}},
				Admin:    []registry.Admin{{Service: "web", Instance: "b", State: registry.AdminDrain, Reason: "because"}},
				Loads:    []registry.Load{{Service: "web", Instance: "a", Load: 0.5, Active: -1, At: time.Now()}},
				Members:  []registry.Member{{Name: "m"}},
			}
			e.apply(b)
			got, _, err := e.pool.State(t.Context(), 1)
			if err != nil || len(got) != 1 {
				t.Fatalf("%d pages, error %v", len(got), err)
			}
			b.Source, b.Revision = 1, 1
			opts := cmp.Options{cmpopts.EquateComparable(b.Instances[0].Addresses[0]), cmpopts.EquateApproxTime(0), cmpopts.EquateEmpty()}
			if diff := cmp.Diff(b, got[0], opts, cmpopts.IgnoreFields(registry.Batch{}, "AsOf")); diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("comes in pages", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			b := registry.Batch{Reset: true}
			for i := range registry.PageMax + 1 {
				b.Instances = append(b.Instances, inst(fmt.Sprintf("web/i%05d 10.0.0.1", i)))
			}
			e.apply(b)
			got, _, err := e.pool.State(t.Context(), 1)
			if err != nil || len(got) != 2 || !got[0].Reset || !got[0].More || got[1].Reset || got[1].More {
				t.Fatalf("%d pages, error %v", len(got), err)
			}
			if n := len(got[0].Instances) + len(got[1].Instances); n != registry.PageMax+1 {
				t.Errorf("%d instances", n)
			}
		})
	})
	t.Run("there is none before the first", func(t *testing.T) {
		bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
			if _, _, err := e.pool.State(t.Context(), 1); !errors.Is(err, pool.ErrNotFound) {
				t.Errorf("error %v, want ErrNotFound", err)
			}
		})
	})
}

func TestPool_Heartbeat(t *testing.T) {
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{Reset: true, Instances: insts("web/a 10.0.0.1 check=ttl", "web/b 10.0.0.2")})
		if err := e.pool.Heartbeat(t.Context(), 1, "web", "a", health.Result{OK: true}); err != nil {
			t.Fatal(err)
		}
		if len(e.checker.reports) != 1 || !e.checker.reports[0].OK {
			t.Errorf("reports %+v, want one", e.checker.reports)
		}
		for _, id := range []string{"b", "c"} {
			if err := e.pool.Heartbeat(t.Context(), 1, "web", id, health.Result{OK: true}); !errors.Is(err, pool.ErrNotFound) {
				t.Errorf("heartbeat of %s: error %v, want ErrNotFound", id, err)
			}
		}
	})
}

func TestPool_Reload(t *testing.T) {
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{
			Reset: true, Instances: insts("web/a 10.0.0.1", "db/a 10.0.0.2"),
			Services: []registry.Service{{Name: "db", Policy: "all"}},
		})
		next := pool.Settings{Sources: []pool.Source{{ID: 1, Zone: zone, Defaults: []registry.Service{
			{Name: "*", Policy: "hash", TTL: 9 * time.Second}, {Name: "web", TTL: 7 * time.Second},
		}}}}
		if err := e.pool.Reload(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"web": "hash 7s", "db": "all 9s"} {
			info, err := e.pool.Service(t.Context(), 1, name)
			if got := info.Policy.Policy + " " + info.Policy.TTL.String(); err != nil || got != want {
				t.Errorf("%s: %q, want %q (error %v)", name, got, want, err)
			}
		}
		next.Sources[0].Defaults[0].Policy = "nosuch"
		if err := e.pool.Reload(t.Context(), next); err == nil || !strings.Contains(err.Error(), "sources[0].defaults[0].policy") {
			t.Errorf("error %v, want one that names the place", err)
		}
		if err := e.pool.Reload(t.Context(), pool.Settings{}); err != nil {
			t.Fatal(err)
		}
		if e.find("web") != nil || e.pool.View().Source(1) != nil {
			t.Error("a source that is gone is still served")
		}
	})
}

func TestPool_Services(t *testing.T) {
	bubble(t, pool.Config{Settings: oneSource}, func(t *testing.T, e *env) {
		e.apply(registry.Batch{
			Reset: true, Instances: insts("web/a 10.0.0.1 w=3 check=tcp", "web/b 10.0.0.2", "web/c 10.0.0.3 tags=v1", "db/a 10.0.0.4 check=http", "kv/a 10.0.0.5 check=held"),
			Admin: []registry.Admin{{Service: "web", Instance: "b", State: registry.AdminDrain, Reason: "new\nkernel"}},
		})
		e.verdict("10.0.0.1", health.Status{State: health.Passing, Output: "fine"})
		list, err := e.pool.Services(t.Context())
		if err != nil || len(list) != 3 || list[0].Name != "db" || list[1].Name != "kv" || list[2].Name != "web" {
			t.Fatalf("services %+v, error %v", list, err)
		}
		want := pool.Counts{Total: 3, In: 2, Passing: 3, Drain: 1}
		if list[2].Counts != want {
			t.Errorf("counts %+v, want %+v", list[2].Counts, want)
		}
		// The interval and its jitter, two more checks, and the last one's timeout.
		if want := 2200*time.Millisecond + 2*time.Second + time.Second; list[0].Detection != want {
			t.Errorf("detection %s, want %s", list[0].Detection, want)
		}
		if kv := list[1]; kv.Detection != 3*time.Second || !strings.Contains(kv.DetectionWhy, "at once when its connection ends") {
			t.Errorf("detection of what is held %s: %q, want interval and timeout, 3s", kv.Detection, kv.DetectionWhy)
		}
		info, err := e.pool.Service(t.Context(), 1, "web")
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, i := range info.Instances {
			lines = append(lines, fmt.Sprintf("%s in=%v %q share=%.2f weight=%g", i.ID, i.In, i.Why, i.Share, i.EffectiveWeight))
		}
		if want := []string{
			`a in=true "passing" share=0.75 weight=3`,
			`b in=false "drain by an administrator: new?kernel" share=0.00 weight=0`,
			`c in=true "passing" share=0.25 weight=1`,
		}; !slices.Equal(lines, want) {
			t.Errorf("instances\n%s", strings.Join(lines, "\n"))
		}
		if c := info.Instances[0].Checks; len(c) != 1 || c[0].Status.Output != "fine" || c[0].Target.Fall != 3 {
			t.Errorf("checks %+v", c)
		}
		if _, err := e.pool.Service(t.Context(), 1, "nosuch"); !errors.Is(err, pool.ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
	})
}
