package etcdcluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/integration/fault"
)

// state is what the service had at a revision, as an answer has it.
type state struct {
	revision int64
	set      string
}

// find is the first of the states with the set; -1 when there is none.
func find(states []state, set string) int {
	return slices.IndexFunc(states, func(s state) bool { return s.set == set })
}

// book is every state that the registry had, as etcd itself tells it while it happens:
// what is compacted later is in it.
type book struct {
	t *testing.T
	c *cluster

	mu     sync.Mutex
	states []state
	err    error // why it could not go on

	abort   context.CancelFunc
	writing sync.WaitGroup
}

// newBook begins a book at the state that there is.
func newBook(t *testing.T, c *cluster) *book {
	t.Helper()
	b := &book{t: t, c: c}
	b.begin()
	t.Cleanup(b.end)
	return b
}

// begin goes on with the state that there is: of a store that was restored, say.
func (b *book) begin() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), settleMax)
	defer cancel()
	resp, err := b.c.Get(ctx, serviceKeys, clientv3.WithPrefix())
	must(b.t, err)
	now := map[string]string{}
	for _, kv := range resp.Kvs {
		now[string(kv.Key)] = string(kv.Value)
	}
	b.add(resp.Header.Revision, now)
	watching, abort := context.WithCancel(context.WithoutCancel(b.t.Context()))
	b.abort = abort
	b.writing.Go(func() { b.write(watching, resp.Header.Revision, now) })
}

// end ends the book, or a part of it before begin.
func (b *book) end() {
	b.abort()
	b.writing.Wait()
	if b.err != nil {
		b.t.Errorf("the history has a gap: %v", b.err)
	}
}

// write follows the store from after a revision with a state, whatever happens to its
// members.
func (b *book) write(ctx context.Context, revision int64, now map[string]string) {
	for ctx.Err() == nil {
		// An own stream each time, so that it may go to another member.
		watcher := clientv3.NewWatcher(b.c.Client)
		events := watcher.Watch(clientv3.WithRequireLeader(ctx), serviceKeys, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
		for resp := range events {
			if resp.CompactRevision != 0 {
				b.mu.Lock()
				b.err = fmt.Errorf("compacted at %d, read up to %d", resp.CompactRevision, revision)
				b.mu.Unlock()
				watcher.Close()
				return
			}
			for _, ev := range resp.Events {
				if ev.Type == clientv3.EventTypeDelete {
					delete(now, string(ev.Kv.Key))
				} else {
					now[string(ev.Kv.Key)] = string(ev.Kv.Value)
				}
				revision = ev.Kv.ModRevision
				b.add(revision, now)
			}
		}
		watcher.Close()
	}
}

func (b *book) add(revision int64, now map[string]string) {
	var set []string
	for _, value := range now {
		addr, _, _ := strings.Cut(value, ":")
		set = append(set, addr)
	}
	slices.Sort(set)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.states = append(b.states, state{revision, strings.Join(set, " ")})
}

// all is every state until now.
func (b *book) all() []state {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.states)
}

// last waits for the state of a revision, or a later one, and returns the last.
func (b *book) last(revision int64) state {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), settleMax)
	defer cancel()
	var last state
	must(b.t, fault.Until(ctx, 5*time.Millisecond, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if last = b.states[len(b.states)-1]; last.revision < revision {
			return fmt.Errorf("etcd tells of revision %d, not yet of %d", last.revision, revision)
		}
		return b.err
	}))
	return last
}

const (
	slots    = 6           // instances at most
	kept     = "i0"        // the one that is never deleted: the service always has an instance
	writeMax = time.Second // how long a write is waited for
)

// changer changes the registry at random. What becomes of a write that fails is not
// known; the book tells.
type changer struct {
	c   *cluster
	rnd *rand.Rand
	n   int // puts so far; each has an address that no other has
}

// change puts or deletes an instance.
func (ch *changer) change(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeMax)
	defer cancel()
	id := fmt.Sprintf("i%d", ch.rnd.IntN(slots))
	if ch.rnd.IntN(4) == 0 && id != kept {
		_, err := ch.c.Delete(ctx, serviceKeys+id)
		return err
	}
	_, err := ch.put(ctx, id)
	return err
}

// put puts an instance, and returns the revision that this made.
func (ch *changer) put(ctx context.Context, id string) (int64, error) {
	ch.n++
	resp, err := ch.c.Put(ctx, serviceKeys+id, fault.Address(ch.n)+":80")
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

// run changes until the function it returns is called.
func (ch *changer) run(ctx context.Context, pauseMax time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var changing sync.WaitGroup
	changing.Go(func() {
		for ctx.Err() == nil {
			_ = ch.change(ctx)
			pause(ctx, time.Duration(ch.rnd.Int64N(int64(pauseMax))))
		}
	})
	return func() { cancel(); changing.Wait() }
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// converge makes a last change and holds the servers to answering it within a limit
// since a moment.
func converge(t *testing.T, b *book, ch *changer, since time.Time, limit time.Duration, servers ...*server) {
	t.Helper()
	var revision int64
	ctx, cancel := context.WithTimeout(t.Context(), settleMax)
	defer cancel()
	must(t, fault.Until(ctx, 10*time.Millisecond, func() error {
		try, cancel := context.WithTimeout(ctx, writeMax)
		defer cancel()
		var err error
		revision, err = ch.put(try, kept)
		return err
	}))
	written := time.Since(since)
	last := b.last(revision)
	for _, s := range servers {
		client, err := fault.Dial(t.Context(), s.DNS)
		must(t, err)
		within, cancel := context.WithDeadline(t.Context(), since.Add(limit))
		err = fault.Until(within, time.Millisecond, func() error {
			got, err := ask(client)
			if err == nil && got != last.set {
				err = errors.New("it answers " + got)
			}
			return err
		})
		cancel()
		client.Close()
		if err != nil {
			t.Errorf("%s has not the last state %q within %s: %v", s.name, last.set, limit, err)
			continue
		}
		t.Logf("a change was written after %s, and answered by %s after %s", written.Round(time.Millisecond), s.name, time.Since(since).Round(time.Millisecond))
	}
}
