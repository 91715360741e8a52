package etcdcluster_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/registry/registrytest"
)

// rightMax is how long after a fault, or after its end where nothing could be known
// before, the right state may take.
const rightMax = 15 * time.Second

// bench is a cluster whose one server is asked all the time.
type bench struct {
	*cluster

	t      *testing.T
	server *server
	book   *book
	asker  *asker
	ch     *changer
}

// newBench starts one with some changes behind it.
func newBench(t *testing.T, c *cluster, start func(*testing.T, *cluster) *server) *bench {
	t.Helper()
	b := &bench{cluster: c, t: t, ch: &changer{c: c, rnd: rand.New(rand.NewPCG(1, 1))}}
	_, err := b.ch.put(t.Context(), kept)
	must(t, err)
	b.book = newBook(t, c)
	b.server = start(t, c)
	b.asker = newAsker(t, b.server)
	b.changes(20)
	b.right(time.Now())
	return b
}

func here(t *testing.T, c *cluster) *server {
	t.Helper()
	return newServer(t, c, "the server")
}

// changes makes some. A write that takes long, as the disk may be busy, is followed
// by another: the book tells what became of it.
func (b *bench) changes(n int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), settleMax)
	defer cancel()
	for range n {
		must(b.t, fault.Until(ctx, 10*time.Millisecond, func() error { return b.ch.change(ctx) }))
	}
}

// right holds the server to a new state within rightMax.
func (b *bench) right(since time.Time) {
	b.t.Helper()
	converge(b.t, b.book, b.ch, since, rightMax, b.server)
}

// check ends the asking and holds every answer against the history.
func (b *bench) check() {
	b.t.Helper()
	b.asker.stop()
	b.asker.check(b.t, b.book.all())
}

func TestCluster_LeaderKilled(t *testing.T) {
	t.Parallel()
	b := newBench(t, newCluster(t), here)
	for range 2 {
		leader := b.leader()
		stop := b.ch.run(t.Context(), 10*time.Millisecond)
		b.kill(leader)
		killed := time.Now()
		b.leader()
		stop()
		b.right(killed)
		b.start(leader)
		b.ready()
		b.right(time.Now())
	}
	b.check()
}

// The networks to two members let nothing through and close nothing: whichever is
// watched, in two of three runs it is cut off.
func TestCluster_NetworksHalfOpen(t *testing.T) {
	t.Parallel()
	b := newBench(t, newCluster(t), here)
	stop := b.ch.run(t.Context(), 20*time.Millisecond)
	b.server.networks[0].Stall()
	b.server.networks[1].Stall()
	cut := time.Now()
	pause(t.Context(), time.Second)
	stop()
	b.right(cut)
	b.server.each((*registrytest.Proxy).Heal)
	b.changes(20)
	b.right(time.Now())
	b.check()
}

// No connection ends when two members hang, and none has a leader then.
func TestCluster_MajorityHangs(t *testing.T) {
	t.Parallel()
	b := newBench(t, newCluster(t), here)
	leader := b.leader()
	other := (leader + 1) % members
	b.hang(leader)
	b.hang(other)
	pause(t.Context(), 8*time.Second)
	b.goOn(leader)
	b.goOn(other)
	b.right(time.Now())
	b.check()
}

func TestCluster_CompactedWhileCutOff(t *testing.T) {
	t.Parallel()
	b := newBench(t, newCluster(t), here)
	before := b.server.count("lists")
	b.server.each((*registrytest.Proxy).Stall)
	b.changes(200)
	states := b.book.all()
	_, err := b.Compact(t.Context(), b.book.last(states[len(states)-1].revision).revision)
	must(t, err)
	b.server.each((*registrytest.Proxy).Cut) // what stands in the sockets is lost
	b.server.each((*registrytest.Proxy).Heal)
	b.right(time.Now())
	if after := b.server.count("lists"); after == before {
		t.Errorf("the complete state was read %v times, as before the compaction", after)
	}
	b.check()
}

func TestCluster_LostAndBack(t *testing.T) {
	t.Parallel()
	b := newBench(t, newCluster(t), here)
	for i := range members {
		b.kill(i)
	}
	pause(t.Context(), 5*time.Second)
	for i := range members {
		b.start(i)
	}
	b.ready()
	b.right(time.Now())
	b.check()
}

// The cluster is restored from a backup with the names, addresses and token that it
// has: its identity is the same, and its revision is one that was already served.
func TestCluster_RestoredToAnOlderRevision(t *testing.T) {
	t.Parallel()
	b := newBench(t, newCluster(t), here)
	file := b.save()
	b.changes(100)
	b.right(time.Now())
	b.book.end()
	b.restore(file)
	back := time.Now()
	b.book.begin() // as it was, which is to be answered again; and from there on
	b.right(back)
	b.changes(20)
	b.right(time.Now())
	if n := b.server.count("rollbacks"); n != 1 {
		t.Errorf("%v rollbacks, want 1", n)
	}
	b.check()
}

// The restored cluster has overtaken the revision that was served when the server
// sees it: nothing that it says of itself tells that it went back.
func TestCluster_RestoredAndAheadByNow(t *testing.T) {
	t.Parallel()
	b := newBench(t, newCluster(t), here)
	file := b.save()
	b.changes(20)
	// What only the lost history has is not to be mixed with what only the new one has.
	_, err := b.ch.put(t.Context(), "lost")
	must(t, err)
	b.right(time.Now())
	b.server.each((*registrytest.Proxy).Cut)
	b.book.end()
	b.restore(file)
	b.book.begin()
	b.changes(100)
	b.server.each((*registrytest.Proxy).Heal)
	b.right(time.Now())
	if n := b.server.count("rollbacks"); n != 1 {
		t.Errorf("%v rollbacks, want 1", n)
	}
	b.check()
}

// Whatever passes between etcd and the server passes half a second late, some of it.
func TestCluster_Slow(t *testing.T) {
	t.Parallel()
	b := newBench(t, newCluster(t), here)
	slow := make(chan struct{})
	var slowing sync.WaitGroup
	slowing.Go(func() {
		for {
			b.server.each((*registrytest.Proxy).Stall)
			select {
			case <-slow:
				b.server.each((*registrytest.Proxy).Heal)
				return
			case <-time.After(500 * time.Millisecond):
			}
			b.server.each((*registrytest.Proxy).Heal)
			pause(t.Context(), 5*time.Millisecond)
		}
	})
	b.changes(200)
	b.right(time.Now())
	b.changes(20)
	close(slow)
	slowing.Wait()
	b.right(time.Now())
	b.check()
}
