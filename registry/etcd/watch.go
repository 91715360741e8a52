package etcd

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/registry"
)

const (
	// A page of a list begins small and doubles while it stays under
	// pageBytes, so that neither a hundred thousand small records take many
	// round trips nor some hostile ones of etcd's greatest size (1.5 MiB) much
	// memory.
	pageFirst = 64
	pageMax   = 4096
	pageBytes = 2 << 20
	// pageFast and pageSlow are the times of a page below which the next is
	// larger and above which it is smaller: a list comes to an end on a slow
	// link too.
	pageFast = 500 * time.Millisecond
	pageSlow = 3 * time.Second
	// listTimeout bounds one page, and a read that scans the prefix.
	listTimeout = 30 * time.Second
	// openTimeout bounds how long it may take to begin a watch.
	openTimeout = 4 * time.Second
)

// Why a watch has to be begun again, from the list or from where it was.
var (
	errRollback = errors.New("the store's revision or identity went back")
	errCompact  = errors.New("the store was compacted beyond where the watch was")
	errMissed   = errors.New("the watch did not deliver a change that is there")
	errSilent   = errors.New("a member has not answered, and the watch lacks a change that another one shows")
	errEnded    = errors.New("the watch ended")
	errUnopened = errors.New("a watch was not begun within " + openTimeout.String())
	errChanged  = errors.New("a connection ended meanwhile, and what followed may be another store's")
)

// sinkError is an error of the receiver, which ends Watch.
type sinkError struct{ err error }

func (e sinkError) Error() string { return e.err.Error() }

// follower is one run of Watch: where it is and what it knows.
type follower struct {
	*feed
	sink  func(registry.Batch) error
	conn  *clientv3.Client
	track *tracker // nil until a list has begun

	listed   bool          // a complete state was delivered and is being followed
	revision int64         // up to which everything was delivered
	cluster  uint64        // the store's identity
	term     uint64        // of the newest linearizable read; it never goes back in one store
	stalls   int           // times in a row that a watch missed changes
	scanned  time.Duration // what the last deep read took

	last  anchor // the last change that was delivered
	conns uint64 // connections begun when the store was last known to have it
	seed  maphash.Seed
}

// Watch delivers the complete state and then every change, until ctx ends or
// sink fails. Whatever happens to etcd, it goes on: by resuming where it was,
// or, when that is no longer possible, by a new complete state, never by an
// empty one. See registry.Watcher.
func (f *feed) Watch(ctx context.Context, sink func(registry.Batch) error) error {
	if !f.watching.CompareAndSwap(false, true) {
		return fmt.Errorf("etcd: %s is being watched already", f.format.Root())
	}
	defer f.watching.Store(false)
	run := &follower{feed: f, sink: sink, seed: maphash.MakeSeed()}
	for {
		err := run.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fromSink, ok := errors.AsType[sinkError](err); ok {
			return fromSink.err
		}
		if run.goOn(err) {
			continue
		}
		f.client.observe(err)
		if err := f.client.retryWait(ctx); err != nil {
			return err
		}
	}
}

// goOn decides how to go on after follow ended. It returns whether to do so
// at once; otherwise etcd is away and is waited for.
func (f *follower) goOn(err error) (atOnce bool) {
	switch {
	case errors.Is(err, errRollback):
		f.counters.rollbacks.Add(1)
		f.listed = false
		f.client.log.Warn("etcd went back; reading the complete state again",
			"prefix", f.format.Root(), "revision", f.revision, "cluster", strconv.FormatUint(f.cluster, 16))
		return true
	case errors.Is(err, errCompact):
		f.listed = false
		f.client.log.Info("etcd was compacted meanwhile; reading the complete state again",
			"prefix", f.format.Root(), "revision", f.revision)
		return true
	case errors.Is(err, errSilent):
		return true // with another member
	case errors.Is(err, errMissed):
		// Another member, usually; when that does not help either, the list.
		if f.stalls++; f.stalls > 2 {
			f.listed, f.stalls = false, 0
		}
		f.client.log.Warn("the watch stands still; beginning it again",
			"prefix", f.format.Root(), "revision", f.revision, "list", !f.listed)
		return true
	}
	return false
}

// follow lists unless the state is known, and then watches until something is
// wrong.
func (f *follower) follow(ctx context.Context) error {
	var err error
	if f.conn, err = f.client.dial(); err != nil {
		return err
	}
	if !f.listed {
		if err := f.list(ctx); err != nil {
			return err
		}
	} else {
		f.counters.resumes.Add(1)
	}
	return f.watch(ctx)
}

// get reads with a bound on the time it takes.
func (f *follower) get(ctx context.Context, timeout time.Duration, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	call, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return f.conn.Get(call, key, opts...)
}

// list delivers the complete state at one revision, in pages.
func (f *follower) list(ctx context.Context) error {
	root := f.format.Root()
	sent := time.Now()
	f.track = newTracker(f.id, f.format, f.track)
	begun, ended := f.client.conns.begun.Load(), f.client.conns.ended.Load()
	var newest *mvccpb.KeyValue
	var revision int64
	page := int64(pageFirst)
	end := clientv3.WithRange(clientv3.GetPrefixRangeEnd(root))
	for from, first := root, true; ; first = false {
		timeout, opts := callTimeout, []clientv3.OpOption{end, clientv3.WithLimit(page)}
		if !first {
			timeout, opts = listTimeout, append(opts, clientv3.WithRev(revision))
		}
		asked := time.Now()
		resp, err := f.get(ctx, timeout, from, opts...)
		if errors.Is(err, rpctypes.ErrCompacted) {
			return errCompact
		}
		if err != nil {
			return fmt.Errorf("listing %s: %w", root, err)
		}
		took := time.Since(asked)
		if first {
			revision = resp.Header.Revision
			f.cluster, f.term = resp.Header.ClusterId, resp.Header.RaftTerm
			f.client.observe(nil)
		}
		size := 0
		for _, kv := range resp.Kvs {
			size += len(kv.Value)
			f.track.listed(kv)
			if newest == nil || kv.ModRevision > newest.ModRevision {
				newest = kv
			}
		}
		if !resp.More {
			if f.client.conns.ended.Load() != ended && !first {
				return fmt.Errorf("listing %s: %w", root, errChanged)
			}
			if f.last = (anchor{}); newest != nil {
				f.last = newAnchor(newest, false, f.seed)
			}
			f.conns = begun
			return f.finishList(ctx, revision, first, sent)
		}
		b, fresh := f.track.take(revision)
		b.Reset, b.More = first, true
		if err := f.deliver(b, fresh); err != nil {
			return err
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		page = nextPage(page, size, took)
	}
}

// nextPage is the number of keys in the page after one that had the given size
// in bytes and took so long.
func nextPage(page int64, size int, took time.Duration) int64 {
	switch {
	case size > pageBytes || took > pageSlow:
		return max(page/2, 1)
	case took < pageFast:
		return min(page*2, pageMax)
	}
	return page
}

// finishList delivers the last page and what follows from the whole.
func (f *follower) finishList(ctx context.Context, revision int64, first bool, sent time.Time) error {
	if err := f.track.settle(ctx, f.at(revision)); err != nil {
		return err
	}
	b, fresh := f.track.take(revision)
	b.Reset, b.AsOf = first, sent
	if err := f.deliver(b, fresh); err != nil {
		return err
	}
	f.track.listing = false
	f.listed, f.revision = true, revision
	f.counters.lists.Add(1)
	f.counters.keys.Store(f.track.keys)
	f.counters.revision.Store(revision)
	f.counters.asOf.Store(sent.UnixNano())
	return nil
}

// at reads keys as they were at a revision.
func (f *follower) at(revision int64) lookup {
	return func(ctx context.Context, raw string) (*mvccpb.KeyValue, error) {
		resp, err := f.get(ctx, callTimeout, raw, clientv3.WithRev(revision))
		if errors.Is(err, rpctypes.ErrCompacted) {
			return nil, errCompact
		}
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", raw, err)
		}
		if len(resp.Kvs) == 0 {
			return nil, nil
		}
		return resp.Kvs[0], nil
	}
}

// deliver hands a batch to the receiver and logs what is newly bad in it.
func (f *follower) deliver(b registry.Batch, fresh []registry.Problem) error {
	f.counters.problems.Store(int64(len(f.track.bad)))
	f.counters.ignored.Store(int64(len(f.track.ignored)))
	for _, p := range fresh {
		if p.Used {
			f.client.log.Warn("a record is used without some of its fields",
				"key", strconv.QuoteToASCII(p.RawKey), "reason", p.Reason, "mend", p.Mend)
			continue
		}
		f.client.log.Warn("a record cannot be used",
			"key", strconv.QuoteToASCII(p.RawKey), "reason", p.Reason, "mend", p.Mend)
	}
	if err := f.sink(b); err != nil {
		return sinkError{err}
	}
	return nil
}

// watch follows changes from the revision after the state's, and proves the
// state's age meanwhile.
func (f *follower) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := f.begin(ctx)
	if err != nil {
		return err
	}
	defer w.watcher.Close()
	proofs := newProver(f)
	defer proofs.stop()
	for {
		select {
		case resp, ok := <-w.events:
			if !ok {
				return errEnded
			}
			if err := f.received(ctx, resp); err != nil {
				return err
			}
			if err := proofs.advanced(); err != nil {
				return err
			}
		case <-proofs.timer.C:
			if err := proofs.ask(ctx); err != nil {
				return err
			}
		case p := <-proofs.answers:
			if err := proofs.answered(p); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begun is a watch that a member has begun.
type begun struct {
	watcher clientv3.Watcher
	events  clientv3.WatchChan
}

// begin has a watch begun by the first member that does.
func (f *follower) begin(ctx context.Context) (begun, error) {
	short, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	root := f.format.Root()
	w, err := hedgedBy(short, f.client.tries(), hedgeDelay, func(try context.Context) (begun, error) {
		// A watcher of its own has a stream of its own: ending it is enough to have
		// the next one made with another member.
		w := begun{watcher: clientv3.NewWatcher(f.conn)}
		on, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(try, cancel)
		w.events = w.watcher.Watch(clientv3.WithRequireLeader(on), root,
			clientv3.WithRange(clientv3.GetPrefixRangeEnd(root)), clientv3.WithRev(f.revision+1), clientv3.WithFragment())
		if !stop() {
			cancel()
			w.watcher.Close()
			return w, try.Err()
		}
		return w, nil
	}, func(w begun) { w.watcher.Close() })
	if err != nil && ctx.Err() == nil {
		return w, errUnopened
	}
	return w, err
}

// received delivers the changes of one response.
func (f *follower) received(ctx context.Context, resp clientv3.WatchResponse) error {
	if err := resp.Err(); err != nil {
		if resp.CompactRevision != 0 || errors.Is(err, rpctypes.ErrCompacted) {
			return errCompact
		}
		return fmt.Errorf("watching %s: %w", f.format.Root(), err)
	}
	if resp.Header.GetClusterId() != 0 && resp.Header.ClusterId != f.cluster {
		return errRollback
	}
	if len(resp.Events) == 0 {
		return nil
	}
	if err := f.sameStore(ctx); err != nil {
		return err
	}
	last := f.count(resp.Events)
	if len(last) == 0 {
		return nil
	}
	end := last[len(last)-1]
	revision := end.Kv.ModRevision
	for _, ev := range last {
		if err := f.track.changed(ctx, ev.Kv, ev.Type == mvccpb.DELETE, f.at(revision)); err != nil {
			return err
		}
	}
	f.findLost(ctx)
	b, fresh := f.track.take(revision)
	if err := f.deliver(b, fresh); err != nil {
		return err
	}
	f.revision, f.stalls = revision, 0
	f.last = newAnchor(end.Kv, end.Type == mvccpb.DELETE, f.seed)
	f.counters.revision.Store(revision)
	f.counters.keys.Store(f.track.keys)
	return nil
}

// count counts the keys that came and went, and returns the last event of each
// key, in order.
func (f *follower) count(events []*clientv3.Event) []*clientv3.Event {
	last := make([]*clientv3.Event, 0, len(events))
	var seen map[string]int // where in last; only needed for several events
	for _, ev := range events {
		if ev.Kv.ModRevision <= f.revision {
			continue // delivered before the watch was resumed
		}
		f.counters.events.Add(1)
		switch {
		case ev.Type == mvccpb.DELETE:
			f.track.keys--
		case ev.IsCreate():
			f.track.keys++
		}
		if len(events) > 1 {
			if seen == nil {
				seen = make(map[string]int, len(events))
			}
			if i, again := seen[string(ev.Kv.Key)]; again {
				last[i] = nil
			}
			seen[string(ev.Kv.Key)] = len(last)
		}
		last = append(last, ev)
	}
	return slices.DeleteFunc(last, func(ev *clientv3.Event) bool { return ev == nil })
}

// wentBack reports whether a linearizable read shows another store, or this
// one as it was before: restored from a backup. Revisions and terms of one
// store only grow.
func (f *follower) wentBack(h *etcdserverpb.ResponseHeader, atLeast int64) bool {
	return h.ClusterId != f.cluster || h.Revision < atLeast || h.RaftTerm < f.term
}
