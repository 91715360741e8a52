package etcdcluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/musterdns/muster/registry/registrytest"
)

// setting is a number in the environment.
func setting(t *testing.T, name string, none uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return none
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%s: %v", name, text, err)
	}
	return n
}

// While instances come, change and go at random, and members of etcd and the networks
// to them fail at random, two servers answer: no question is lost, each answer is a
// state that the registry had, none is from before the one that the same server gave
// before, and when all is well again both answer the last state within five seconds.
func TestHistory_EveryAnswerIsAStateAndNoneGoesBack(t *testing.T) {
	t.Parallel()
	const (
		secondsDefault = 30
		equalMax       = 5 * time.Second
		changePause    = 20 * time.Millisecond
	)
	seed := setting(t, "HISTORY_SEED", uint64(time.Now().UnixNano()))
	t.Logf("HISTORY_SEED=%d", seed)
	c := newCluster(t)
	ch := &changer{c: c, rnd: rand.New(rand.NewPCG(seed, 1))}
	_, err := ch.put(t.Context(), kept)
	must(t, err)
	b := newBook(t, c)
	d := &disturber{t: t, c: c, b: b, rnd: rand.New(rand.NewPCG(seed, 2)), done: map[string]int{}}
	var askers []*asker
	for i := range 2 {
		s := newServer(t, c, fmt.Sprintf("server %d", i))
		d.servers, askers = append(d.servers, s), append(askers, newAsker(t, s))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(setting(t, "HISTORY_SECONDS", secondsDefault))*time.Second)
	defer cancel()
	stop := ch.run(t.Context(), changePause)
	defer stop()
	for pause(ctx, time.Second); ctx.Err() == nil; pause(ctx, time.Second) {
		d.disturb(ctx)
	}
	c.ready() // a member that was started last may have to catch up first
	healed := time.Now()
	stop()
	converge(t, b, ch, healed, equalMax, d.servers...)
	t.Logf("faults: %v", d.done)
	for _, a := range askers {
		a.stop()
		a.check(t, b.all())
	}
}

// disturber breaks something for a while, one thing at a time.
type disturber struct {
	t       *testing.T
	c       *cluster
	b       *book
	servers []*server
	rnd     *rand.Rand
	done    map[string]int // how often what was broken
}

// disturb breaks something, and mends it.
func (d *disturber) disturb(ctx context.Context) {
	d.t.Helper()
	i := d.rnd.IntN(members)
	if d.rnd.IntN(2) == 0 {
		i = d.c.leader()
	}
	s := d.servers[d.rnd.IntN(len(d.servers))]
	// Most are over before they are noticed; some are longer than it takes to
	// leave a connection that is half open.
	last := time.Duration(500+d.rnd.IntN(3000)) * time.Millisecond
	if d.rnd.IntN(6) == 0 {
		last += 12 * time.Second
	}
	faults := []struct {
		name string
		run  func()
	}{
		{"a member killed", func() { d.c.kill(i); pause(ctx, last); d.c.start(i) }},
		{"a member hung", func() { d.c.hang(i); pause(ctx, last); d.c.goOn(i) }},
		{"a majority hung", func() {
			other := (i + 1) % members
			d.c.hang(i)
			d.c.hang(other)
			pause(ctx, last)
			d.c.goOn(i)
			d.c.goOn(other)
		}},
		{"a network half open", func() { s.networks[i].Stall(); pause(ctx, last); s.networks[i].Heal() }},
		{"all networks of a server half open", func() {
			s.each((*registrytest.Proxy).Stall)
			pause(ctx, last)
			s.each((*registrytest.Proxy).Heal)
		}},
		{"a server cut off and etcd compacted", func() {
			s.each((*registrytest.Proxy).Cut)
			pause(ctx, last)
			d.compact()
			s.each((*registrytest.Proxy).Heal)
		}},
	}
	f := faults[d.rnd.IntN(len(faults))]
	d.t.Logf("%s: %s for %s (member %d, %s)", time.Now().Format(time.StampMilli), f.name, last, i, s.name)
	d.done[f.name]++
	f.run()
}

// compact drops what is in the book from etcd's own history.
func (d *disturber) compact() {
	ctx, cancel := context.WithTimeout(d.t.Context(), writeMax)
	defer cancel()
	states := d.b.all()
	if _, err := d.c.Compact(ctx, states[len(states)-1].revision); err != nil {
		d.t.Logf("not compacted: %v", err)
	}
}
