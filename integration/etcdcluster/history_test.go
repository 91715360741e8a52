package etcdcluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/integration/fault"
)

const (
	historyName   = "hist"
	historyKeys   = "/muster/v1/instances/" + historyName + "/"
	historySlots  = 6 // instances at most
	historyPolicy = "services: [{name: hist, policy: all}]\n"
)

// seen is one answer: the addresses in order, and when it came.
type seen struct {
	set string
	at  time.Time
}

// historySeconds is how long the history is made: HISTORY_SECONDS, or 20.
func historySeconds(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("HISTORY_SECONDS")
	if text == "" {
		return 20 * time.Second
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("HISTORY_SECONDS=%s: %v", text, err)
	}
	return time.Duration(n) * time.Second
}

// While instances come, change and go at random and members of etcd are killed and hang,
// two servers answer: each answer is a state that the registry had, none is from before
// the one that the same server gave before, and when all is well again both answer the
// last state within five seconds.
func TestHistory_EveryAnswerIsAStateAndNoneGoesBack(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	c := newCluster(t)
	put(t, c, 0, 1)
	var replicas []*fault.Server
	for range 2 {
		_, s := c.replica(historyPolicy)
		replicas = append(replicas, s)
	}
	ctx, stop := context.WithTimeout(t.Context(), historySeconds(t))
	defer stop()
	answers := make([][]seen, len(replicas))
	lost := make([]int, len(replicas))
	var running sync.WaitGroup
	for i, s := range replicas {
		running.Go(func() { answers[i], lost[i] = ask(ctx, s.DNS) })
	}
	running.Go(func() { change(ctx, c, rand.New(rand.NewPCG(seed, 2))) })
	disturb(ctx, t, c, rnd)
	running.Wait()

	healed := time.Now()
	states := history(t, c)
	final := states[len(states)-1]
	for i, s := range replicas {
		within, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := fault.Until(within, 10*time.Millisecond, func() error {
			if got, err := one(within, s.DNS); err != nil || got != final {
				return fmt.Errorf("it answers %q, %w; the last state is %q", got, err, final)
			}
			return nil
		})
		cancel()
		if err != nil {
			t.Errorf("server %d, 5 s after the faults: %v", i, err)
		}
		t.Logf("server %d: %d answers, %d lost, the last state %s after the faults", i, len(answers[i]), lost[i], time.Since(healed).Round(time.Millisecond))
		if lost[i] > 0 {
			t.Errorf("server %d: %d questions without an answer", i, lost[i])
		}
		check(t, i, states, answers[i])
	}
}

// check finds each answer among the states, in their order.
func check(t *testing.T, server int, states []string, answers []seen) {
	t.Helper()
	if len(answers) < 100 {
		t.Errorf("server %d: %d answers only", server, len(answers))
	}
	at, distinct := 0, map[int]bool{}
	for n, a := range answers {
		i := slices.Index(states[at:], a.set)
		if i < 0 {
			if before := slices.Index(states, a.set); before >= 0 {
				t.Fatalf("server %d, answer %d: %q is the state %d, after the state %d", server, n, a.set, before, at)
			}
			t.Fatalf("server %d, answer %d: %q was never a state", server, n, a.set)
		}
		at += i
		distinct[at] = true
	}
	t.Logf("server %d: %d of %d states were seen", server, len(distinct), len(states))
}

// put registers an instance in a slot, at an address that no other put has.
func put(t *testing.T, c *cluster, slot, n int) {
	t.Helper()
	if _, err := c.client.Put(t.Context(), fmt.Sprintf("%si%d", historyKeys, slot), address(n)); err != nil {
		t.Fatal(err)
	}
}

func address(n int) string { return fmt.Sprintf("10.%d.%d.%d:80", n>>16&255, n>>8&255, n&255) }

// change puts and deletes until ctx ends. What becomes of a write that fails is not
// known, and the history tells.
func change(ctx context.Context, c *cluster, rnd *rand.Rand) {
	for n := 2; ctx.Err() == nil; n++ {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		key := fmt.Sprintf("%si%d", historyKeys, rnd.IntN(historySlots))
		if rnd.IntN(4) == 0 && key != historyKeys+"i0" { // one always stays
			_, _ = c.client.Delete(call, key)
		} else {
			_, _ = c.client.Put(call, key, address(n))
		}
		cancel()
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rnd.IntN(20)) * time.Millisecond):
		}
	}
}

// disturb kills members and has them hang, one at a time, until ctx ends; then all are
// well.
func disturb(ctx context.Context, t *testing.T, c *cluster, rnd *rand.Rand) {
	t.Helper()
	wait := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	for wait(time.Second); ctx.Err() == nil; wait(2 * time.Second) {
		i := rnd.IntN(members)
		if rnd.IntN(2) == 0 {
			if leader, err := c.leader(ctx); err == nil {
				i = leader
			}
		}
		if rnd.IntN(2) == 0 {
			t.Logf("member %d is killed", i)
			c.kill(i)
			wait(time.Duration(500+rnd.IntN(1500)) * time.Millisecond)
			c.start(i)
		} else {
			t.Logf("member %d hangs", i)
			c.hang(i)
			wait(time.Duration(500+rnd.IntN(3000)) * time.Millisecond)
			c.goOn(i)
		}
	}
}

// ask asks a server one question after the other, and returns the answers and how many
// questions had none.
func ask(ctx context.Context, server string) (answers []seen, lost int) {
	for ctx.Err() == nil {
		// The last question is answered too: ctx's end is not to be taken for a loss.
		if set, err := one(context.WithoutCancel(ctx), server); err == nil {
			answers = append(answers, seen{set, time.Now()})
		} else {
			lost++
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
	return answers, lost
}

// one asks once, and returns the addresses in order.
func one(ctx context.Context, server string) (string, error) {
	m := new(dns.Msg)
	m.SetQuestion(historyName+"."+fault.Zone, dns.TypeA)
	m.SetEdns0(1232, false)
	r, _, err := (&dns.Client{Timeout: time.Second}).ExchangeContext(ctx, m, server)
	if err != nil {
		return "", err
	}
	if r.Rcode != dns.RcodeSuccess {
		return "", fmt.Errorf("%s", dns.RcodeToString[r.Rcode])
	}
	set := fault.Addresses(r)
	slices.Sort(set)
	return strings.Join(set, " "), nil
}

// history is every state that the registry had, as an answer has it, from etcd's own
// record.
func history(t *testing.T, c *cluster) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last int64
	if err := fault.Until(ctx, 50*time.Millisecond, func() error {
		resp, err := c.client.Get(ctx, historyKeys, clientv3.WithPrefix())
		if err == nil {
			last = resp.Header.Revision
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	// A last event that the watch must come to.
	resp, err := c.client.Put(ctx, historyKeys+"i0", "10.255.255.1:80")
	if err != nil {
		t.Fatal(err)
	}
	last = max(last, resp.Header.Revision)
	state := map[string]string{}
	var states []string
	for events := range c.client.Watch(clientv3.WithRequireLeader(ctx), historyKeys, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := events.Err(); err != nil {
			t.Fatal(err)
		}
		for _, ev := range events.Events {
			if ev.Type == clientv3.EventTypeDelete {
				delete(state, string(ev.Kv.Key))
			} else {
				state[string(ev.Kv.Key)], _, _ = strings.Cut(string(ev.Kv.Value), ":")
			}
			var set []string
			for _, a := range state {
				set = append(set, a)
			}
			slices.Sort(set)
			states = append(states, strings.Join(set, " "))
			if ev.Kv.ModRevision == last {
				return states
			}
		}
	}
	t.Fatal("the history has no end")
	return nil
}
