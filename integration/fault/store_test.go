package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/registry/registrytest"
)

// behind starts an etcd and a server that sees it through a proxy.
func behind(t *testing.T, l *fault.Lab, load func(*fault.Etcd) error) (*fault.Etcd, *registrytest.Proxy, *fault.Server) {
	t.Helper()
	e := etcd(t, l)
	if err := load(e); err != nil {
		t.Fatal(err)
	}
	proxy := registrytest.NewProxy(t, e.Listen())
	return e, proxy, run(t, l, fault.Settings{Etcd: "http://" + proxy.Addr()})
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// etcd starts an etcd that ends with the test.
func etcd(t *testing.T, l *fault.Lab) *fault.Etcd {
	t.Helper()
	e, err := l.Etcd(t.Context())
	must(t, err)
	t.Cleanup(func() { e.Close() })
	return e
}

// put puts a key.
func put(t *testing.T, e *fault.Etcd, key, value string) {
	t.Helper()
	_, err := e.Put(t.Context(), key, value)
	must(t, err)
}

// remove deletes a key.
func remove(t *testing.T, e *fault.Etcd, key string) {
	t.Helper()
	_, err := e.Delete(t.Context(), key)
	must(t, err)
}

func TestStore_CompactedWhileCutOffIsReadAgainWithoutAnEmptyMoment(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const stable = 50
	e, proxy, s := behind(t, l, func(e *fault.Etcd) error { return e.Load(t.Context(), fault.Instances(stable, 2)) })
	c := dial(t, s)
	await(t, c, fault.ServiceName(stable-1)+"."+fault.Zone, dns.TypeA, fault.Answered)
	put(t, e, fault.Instance("goes", "one"), "10.8.0.1:80")
	put(t, e, fault.Instance("moves", "one"), "10.8.0.2:80")
	await(t, c, "moves."+fault.Zone, dns.TypeA, fault.Has("10.8.0.2"))
	stop := s.Load(t.Context(), stable, 2, 500)

	proxy.Stall()
	// 10,000 changes that the server misses, and their history.
	must(t, e.Load(t.Context(), func(yield func(key, value string) bool) {
		for n := range 10_000 {
			if !yield(fault.Instance("missed", fmt.Sprintf("i%d", n%1000)), fault.Address(n)+":80") {
				return
			}
		}
	}))
	put(t, e, fault.Instance("moves", "one"), "10.8.0.3:80")
	resp, err := e.Client.Delete(t.Context(), fault.Instance("goes", "one"))
	must(t, err)
	_, err = e.Compact(t.Context(), resp.Header.Revision)
	must(t, err)
	proxy.Cut() // what stands in the sockets is lost
	proxy.Heal()

	healed := time.Now()
	await(t, c, "moves."+fault.Zone, dns.TypeA, fault.Has("10.8.0.3"))
	await(t, c, "goes."+fault.Zone, dns.TypeA, fault.RCode(dns.RcodeNameError))
	await(t, c, "i999.missed."+fault.Zone, dns.TypeA, fault.Has(fault.Address(9999)))
	if took := time.Since(healed); took > busy*5*time.Second {
		t.Errorf("the state was right after %s, want 5s at most on a machine that is idle", took)
	}
	logged(t, s, "compacted")
	tally, err := stop()
	if err = errors.Join(err, tally.Bad()); err != nil {
		t.Error(err)
	}
}

func TestStore_ThatWentBackIsReadAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e, _, s := behind(t, l, func(e *fault.Etcd) error {
		_, err := e.Put(t.Context(), fault.Instance("old", "one"), "10.8.1.1:80")
		return err
	})
	c := dial(t, s)
	await(t, c, "old."+fault.Zone, dns.TypeA, fault.Has("10.8.1.1"))
	must(t, e.Kill())
	must(t, e.Keep("kept"))
	must(t, e.Start())
	must(t, e.Ready(t.Context()))
	for n := range 20 {
		put(t, e, fault.Instance("old", "one"), fmt.Sprintf("10.8.2.%d:80", n))
		put(t, e, fault.Instance("new", fmt.Sprintf("i%d", n)), "10.8.3.1:80")
	}
	await(t, c, "i19.new."+fault.Zone, dns.TypeA, fault.Has("10.8.3.1"))

	for _, store := range []struct{ what, name, old string }{
		{"its own past", "kept", "10.8.1.1"},
		{"another cluster", "another", "10.8.4.1"},
	} {
		must(t, e.Kill())
		must(t, e.Replace(t.Context(), store.name))
		back := time.Now()
		put(t, e, fault.Instance("old", "one"), store.old+":80")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := c.Await(ctx, "old."+fault.Zone, dns.TypeA, fault.Has(store.old))
		if err == nil {
			_, err = c.Await(ctx, "i19.new."+fault.Zone, dns.TypeA, fault.RCode(dns.RcodeNameError))
		}
		cancel()
		if err != nil {
			t.Fatalf("%s is not served within 10s: %v\n%s", store.what, err, s.LogTail())
		}
		t.Logf("%s is served after %s", store.what, time.Since(back))
	}
	logged(t, s, "went back")
	remove(t, e, fault.Instance("old", "one"))
	await(t, c, "old."+fault.Zone, dns.TypeA, fault.RCode(dns.RcodeNameError))
}
