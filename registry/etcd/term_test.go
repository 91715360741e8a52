package etcd_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/registry/etcd"
	"github.com/musterdns/muster/registry/registrytest"
)

// termTTL is short, so that a test takes few seconds, and long enough for a busy
// machine to renew it.
const termTTL = 4 * time.Second

// vip is the address that the tests are about.
const (
	vip    = "10.0.0.100"
	vipKey = prefix + "/vips/" + vip
)

// campaign begins a campaign that cannot be over before who holds the address
// ends his term.
func campaign(t *testing.T, s *etcd.Source, name string) (won func() *etcd.Term) {
	t.Helper()
	return campaignAs(t, s, etcd.Candidate{Value: name, TTL: termTTL})
}

func campaignAs(t *testing.T, s *etcd.Source, c etcd.Candidate) (won func() *etcd.Term) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	type outcome struct {
		term *etcd.Term
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		defer cancel()
		term, err := s.Campaign(ctx, netip.MustParseAddr(vip), c)
		done <- outcome{term, err}
	}()
	return func() *etcd.Term {
		t.Helper()
		o := <-done
		if o.err != nil {
			t.Fatal(o.err)
		}
		t.Cleanup(func() { _ = o.term.Resign(t.Context()) }) // which is done: it ends the renewals alone
		return o.term
	}
}

// lasts waits until a term has been renewed for longer than its lease was at
// first, in which time others have come to campaign.
func lasts(term *etcd.Term) {
	until := term.Deadline().Add(termTTL)
	for range term.Changed() {
		if term.Deadline().After(until) {
			return
		}
	}
}

// over waits until a term has ended.
func over(term *etcd.Term) {
	for range term.Changed() { // its end is what is waited for
	}
}

func TestSource_Campaign(t *testing.T) {
	t.Parallel()
	url, stop := startDebian(t, t.TempDir(), "127.0.0.1:0")
	conn := connect(t, url)
	a, b := newSource(t, 1, prefix, url), newSource(t, 1, prefix, url)
	holder := func() string {
		t.Helper()
		resp, err := conn.Get(t.Context(), vipKey)
		if err != nil || len(resp.Kvs) != 1 {
			t.Fatalf("%v: %v, %v", vipKey, resp, err)
		}
		return string(resp.Kvs[0].Value)
	}

	// It is renewed for as long as it is not resigned.
	first := campaign(t, a, "a")()
	second := campaign(t, b, "b")
	lasts(first)
	if got := holder(); got != "a" || !time.Now().Before(first.Deadline()) {
		t.Fatalf("%s holds the address, the first until %v; want it to be the first", got, first.Deadline())
	}
	if err := first.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	over(first)
	term := second()
	if got := holder(); got != "b" || !term.NotBefore().IsZero() {
		t.Errorf("after the first has resigned %s holds the address, not before %v; want b at once", got, term.NotBefore())
	}

	// Where another deletes the key, its holder may not know yet: who is elected
	// waits for as long as the holder could go on.
	third := campaign(t, a, "a")
	lasts(term)
	store{t, conn}.Delete(vipKey)
	next := third()
	over(term)
	if next.NotBefore().Before(term.Deadline()) {
		t.Errorf("the key deleted, the next may begin at %v, the holder believes to be one until %v", next.NotBefore(), term.Deadline())
	}

	// Without etcd a term ends by its deadline, not before.
	stop()
	over(next)
	if time.Now().Before(next.Deadline()) {
		t.Errorf("with etcd gone the term ends %v before its deadline", time.Until(next.Deadline()))
	}
}

// Of candidates the one with the highest priority is elected, and who holds the
// address beside a preferred one goes on for a while and then ends.
func TestSource_CampaignByPriority(t *testing.T) {
	t.Parallel()
	url, _ := startDebian(t, t.TempDir(), "127.0.0.1:0")
	conn := connect(t, url)
	low, high := newSource(t, 1, prefix, url), newSource(t, 1, prefix, url)
	announced := func(n int) {
		t.Helper()
		for {
			resp, err := conn.Get(t.Context(), vipKey+"/", clientv3.WithPrefix())
			if err != nil {
				t.Fatal(err)
			}
			if len(resp.Kvs) == n {
				return
			}
		}
	}
	preferred := etcd.Candidate{Value: "high", TTL: termTTL, Priority: 20}
	other := etcd.Candidate{Value: "low", TTL: termTTL, Priority: 10}

	first := campaignAs(t, low, other)()
	announced(0)
	// One that gives up in time, as it fails and comes again, moves nothing.
	for range 2 {
		ctx, giveUp := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := high.Campaign(ctx, netip.MustParseAddr(vip), preferred)
			ended <- err
		}()
		announced(1)
		lasts(first)
		giveUp()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		announced(0)
	}
	began := time.Now()
	next := campaignAs(t, high, preferred)
	over(first)
	if took := time.Since(began); first.Err() != nil || took < 3*termTTL {
		t.Errorf("beside a preferred candidate the holder's term ends after %v with %v, want three times %v and no error", took, first.Err(), termTTL)
	}
	// The one before campaigns again before it resigns, and yet is not elected.
	again := campaignAs(t, low, other)
	announced(2)
	if err := first.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	term := next()
	lasts(term)
	announced(1)
	if err := term.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	again()
}

func TestSource_Resume(t *testing.T) {
	t.Parallel()
	url, _ := startDebian(t, t.TempDir(), "127.0.0.1:0")
	before, after := newSource(t, 1, prefix, url), newSource(t, 1, prefix, url)
	c := etcd.Candidate{Value: "a", TTL: termTTL}
	resume := func(token string) *etcd.Term {
		t.Helper()
		term, err := after.Resume(t.Context(), netip.MustParseAddr(vip), token, c)
		if err != nil {
			t.Fatal(err)
		}
		if term != nil {
			t.Cleanup(term.Release)
		}
		return term
	}

	first := campaign(t, before, "a")()
	second := resume(first.Token())
	if second == nil || second.Token() != first.Token() {
		t.Fatalf("the term %s is resumed as %v", first.Token(), second)
	}
	lasts(first) // both may renew it
	first.Release()
	over(first)
	lasts(second)
	if err := second.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if term := resume(first.Token()); term != nil {
		t.Error("a term that has ended is resumed")
	}
	third := campaign(t, before, "b")()
	if term := resume(first.Token()); term != nil {
		t.Error("a term that has ended is resumed although another holds the address")
	}
	lasts(third)
	if _, err := after.Resume(t.Context(), netip.MustParseAddr(vip), "x", c); err == nil {
		t.Error("what is no term is resumed")
	}
}

// A candidate learns that the address is free, and keeps it, while two of three members
// are cut off from it, whichever it watches.
func TestSource_Campaign_MembersCutOff(t *testing.T) {
	t.Parallel()
	members, networks, urls := threeNetworks(t)
	holders, candidates := newSource(t, 1, prefix, members.Endpoints()...), newSource(t, 1, prefix, urls...)
	for left := range networks {
		before, err := holders.Campaign(t.Context(), netip.MustParseAddr(vip), etcd.Candidate{Value: "before", TTL: termTTL})
		if err != nil {
			t.Fatal(err)
		}
		won := campaign(t, candidates, "after")
		lasts(before)
		for i, network := range networks {
			if i != left {
				network.Stall()
			}
		}
		if err := before.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		after := won()
		if took := time.Since(began); took > termTTL+registrytest.Busy {
			t.Errorf("elected after %s with only member %d there, want %s", took, left, termTTL)
		}
		lasts(after)
		if err := after.Err(); err != nil {
			t.Errorf("the term ended with only member %d there: %v", left, err)
		}
		for _, network := range networks {
			network.Heal()
		}
		if err := after.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
