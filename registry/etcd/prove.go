package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/registry"
)

const (
	// ProofInterval is how often the age of the state is proven.
	ProofInterval = 5 * time.Second
	// deepDelay is how long after a read a watch may lag before it is asked
	// whether anything is missing: a change is delivered within milliseconds.
	deepDelay = 250 * time.Millisecond
	// lagMax is how long a watch may lack a change that a read has shown.
	lagMax = time.Second
	// shakyProofs is how many proofs after a failure come each retryInterval: a
	// watch that did not survive what broke the connection is found out by them,
	// and etcd's return must not go unnoticed for a whole ProofInterval.
	shakyProofs = 5
	// deepShare keeps deep reads to a tenth of the server's time, however many
	// keys there are.
	deepShare = 10
	// A deep read may take deepRoom times what the last one took, and after half of that
	// another member is asked for it.
	deepRoom = 4
)

// prover finds out how old the delivered state is. A watch that is silent
// proves nothing, and the progress notifications of servers before 3.4.25 and
// 3.5.8 can run ahead of events. So it reads:
//
// A linearizable read returns the store's revision R. When everything up to R
// was delivered, the state is as new as the moment the read was sent. In a
// store that others write to, R may be ahead for ever with nothing to deliver.
// Then a deep read asks for the keys under the prefix that changed since the
// delivered revision, and for the number of keys: none changed and the number
// is that of the tracker, so none was deleted either, and the state is
// complete. Both hold for any version of etcd and need the right to read only.
// The deep read costs the server a scan of the prefix, and is made only when
// the cheap one has not sufficed.
//
// The cheap read is of the last change delivered, and so also shows that the store is
// still the one that made it: see anchor.
//
// Only the goroutine of Watch uses it; ask starts one goroutine at a time.
type prover struct {
	f       *follower
	timer   *time.Timer
	abort   context.CancelFunc // of the read that is under way
	answers chan answer        // 1-slot
	reading sync.WaitGroup

	asked   bool      // a read is under way
	deep    bool      // what the next read is
	doubt   bool      // a read has failed since the last proof: the watch may be cut off too
	shaky   int       // proofs that come sooner, since the connection is new
	sent    time.Time // of the newest read that is not proven yet; zero: none
	target  int64     // the revision that proves it
	lagging time.Time // since when something is missing; zero: nothing is
}

// answer is the outcome of one read.
type answer struct {
	sent  time.Time
	took  time.Duration
	since int64 // the delivered revision when the read was sent
	keys  int64 // the tracker's number of keys then
	deep  bool
	hedge time.Duration // after which another member was asked
	err   error

	header *etcdserverpb.ResponseHeader
	found  *clientv3.GetResponse // by a deep read
}

// newProver returns a prover whose first read is due at once: after a
// disconnect, whether the store is still the same is the first thing to know.
func newProver(f *follower) *prover {
	return &prover{f: f, shaky: shakyProofs, answers: make(chan answer, 1), timer: time.NewTimer(0), abort: func() {}}
}

// stop ends a read that is under way and waits for it.
func (p *prover) stop() {
	p.timer.Stop()
	p.abort()
	p.reading.Wait()
}

// ask sends a read, unless one is under way: its answer sets the timer again. In doubt
// about the watch a deep read is not made: it may go where nothing answers, and to resume
// a watch costs less.
func (p *prover) ask(ctx context.Context) error {
	if p.asked {
		return nil
	}
	if p.doubt && !p.lagging.IsZero() {
		return errSilent
	}
	p.asked = true
	a := answer{sent: time.Now(), since: p.f.revision, keys: p.f.track.keys, deep: p.deep, hedge: hedgeDelay}
	read := p.f.recognize()
	if a.deep {
		a.hedge = max(hedgeDelay, deepRoom/2*p.f.scanned)
		read = p.scan(&a)
	}
	ctx, p.abort = context.WithCancel(ctx)
	p.reading.Go(func() {
		a.header, a.err = read(ctx)
		a.took = time.Since(a.sent)
		p.answers <- a
	})
	return nil
}

// scan returns what makes a deep read.
func (p *prover) scan(a *answer) func(context.Context) (*etcdserverpb.ResponseHeader, error) {
	f, since, delay := p.f, a.since, a.hedge
	timeout := min(max(callTimeout, deepRoom*f.scanned), listTimeout)
	root := f.format.Root()
	read := func(ctx context.Context) (*clientv3.GetResponse, error) {
		return f.get(ctx, timeout, root, clientv3.WithRange(clientv3.GetPrefixRangeEnd(root)),
			clientv3.WithMinModRev(since+1), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
	}
	return func(ctx context.Context) (*etcdserverpb.ResponseHeader, error) {
		var err error
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		a.found, err = hedgedBy(ctx, len(f.client.cfg.Endpoints), delay, read, func(*clientv3.GetResponse) {})
		if err != nil {
			return nil, err
		}
		return a.found.Header, nil
	}
}

// answered takes in the outcome of a read.
func (p *prover) answered(a answer) error {
	f := p.f
	p.asked = false
	p.abort()
	if errors.Is(a.err, errRollback) || errors.Is(a.err, errCompact) {
		f.client.observe(nil) // it has answered
		return a.err
	}
	f.client.observe(a.err)
	if a.err != nil {
		p.failed(a)
		return nil
	}
	if f.wentBack(a.header, a.since) {
		return errRollback
	}
	p.doubt = p.doubt || a.took > a.hedge
	f.term = a.header.RaftTerm
	if a.header.Revision <= f.revision {
		return p.proven(a.sent, ProofInterval)
	}
	if a.deep {
		f.scanned = a.took
	}
	if a.deep && a.since == f.revision && len(a.found.Kvs) == 0 && a.found.Count == a.keys {
		// Nothing under the prefix changed up to there, so a watch can go on from
		// there: the longer it is silent, the nearer comes a compaction.
		f.revision = a.header.Revision
		return p.proven(a.sent, max(ProofInterval, deepShare*a.took))
	}
	if p.lagging.IsZero() {
		p.lagging = a.sent
	} else if a.deep && a.since == f.revision && time.Since(p.lagging) > lagMax {
		return errMissed
	}
	p.sent, p.target, p.deep = a.sent, a.header.Revision, true
	p.timer.Reset(max(deepDelay, deepShare*a.took))
	return nil
}

// failed plans the read after one that failed, which says nothing of the watch. Where it
// was waited for, that follows at once.
func (p *prover) failed(a answer) {
	p.f.client.nudge()
	p.doubt, p.shaky = true, shakyProofs
	if a.deep {
		p.f.scanned = a.took // it may be the scan that takes so long
	}
	p.timer.Reset(max(retryInterval-a.took, 0))
}

// advanced is called when changes were delivered: they may be what a read was
// waiting for.
func (p *prover) advanced() error {
	p.lagging = time.Time{}
	if p.sent.IsZero() || p.target > p.f.revision {
		return nil
	}
	return p.proven(p.sent, ProofInterval)
}

// proven delivers the time at which the state was complete.
func (p *prover) proven(sent time.Time, next time.Duration) error {
	p.sent, p.target, p.lagging, p.deep, p.doubt = time.Time{}, 0, time.Time{}, false, false
	if p.shaky > 0 {
		p.shaky--
		next = min(next, retryInterval)
	}
	p.timer.Reset(next)
	p.f.counters.asOf.Store(sent.UnixNano())
	p.f.counters.revision.Store(p.f.revision)
	return p.f.deliver(registry.Batch{Source: p.f.id, Revision: p.f.revision, AsOf: sent}, nil)
}
