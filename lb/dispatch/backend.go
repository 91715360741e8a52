package dispatch

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
)

// Backend is one Ref as the proxies see it. It is safe for concurrent use.
type Backend struct {
	d      *Dispatcher
	ref    Ref
	wire   []byte // the service's name
	users  int    // guarded by the Dispatcher's mu
	active atomic.Int64
	seq    atomic.Uint64 // of round robin
	epoch  atomic.Uint64 // counts changes of ejections

	now atomic.Pointer[state]

	mu        sync.Mutex // guards what is below, and the building of states
	instances map[string]*instance
	ended     []ended // to be told by Run
	forgotten bool    // it is the Dispatcher's no more
}

// ended is a term that has ended and whom to tell.
type ended struct {
	end   End
	hooks []*hook
}

// state is what Choose picks from. Immutable.
type state struct {
	service *pool.Service // nil: not registered
	// standing is the service where its instances are registered; nil: it has none.
	standing *standing
	epoch    uint64
	loads    []lb.Tier // by which a tier is drawn; nil: there is one at most
	tiers    []tier
	byID     map[string]*instance // of all tiers
	hashed   bool
	mode     pool.Mode
	members  int // registered
}

// tier is the instances of one tier that may be chosen.
type tier struct {
	picker  lb.Picker
	list    []*instance
	weights []uint32         // effective, of list
	zones   map[string]*tier // its parts, where clients are answered from the nearest
}

func newBackend(d *Dispatcher, ref Ref) *Backend {
	b := &Backend{d: d, ref: ref, wire: pool.WireName(ref.Service), instances: map[string]*instance{}}
	b.seq.Store(rand.Uint64() >> 1) // or proxies that start together all begin with the same instance
	b.refresh()
	return b
}

// Ref is what the Backend is of.
func (b *Backend) Ref() Ref { return b.ref }

// Request is what a choice depends on beside the state.
type Request struct {
	// Hash is what hashing policies choose by: HashAddr of the client, or
	// HashString of a cookie or header.
	Hash uint64
	// Client is whose it is, for the nearest instances; not valid: anybody's.
	Client netip.Addr
	// Keep is the id of an instance to keep to while it may be served, for
	// sticky sessions; empty: none.
	Keep string
	// ActiveMax is how many requests may be in flight at one instance through
	// this Backend; 0: any number. It may be exceeded by as many as choose at
	// the same instant.
	ActiveMax int64
}

// pickTries bounds the picks for one that was not tried and has room; then all
// instances are looked through.
const pickTries = 4

// Choose chooses an instance that is not among tried (nil: none), by the
// service's policy: weighted, round robin, hash, or by what is in flight for
// least-loaded. The Choice is to be given back by Done, whatever becomes of it.
func (b *Backend) Choose(r Request, tried *Tried) (Choice, error) {
	st := b.refresh()
	if st.expired() {
		return b.search(&state{}, r, nil, false)
	}
	if r.Keep != "" {
		if i := st.byID[r.Keep]; i != nil && !tried.has(i) {
			if c, ok := b.take(i, r.ActiveMax); ok {
				return c, nil
			}
		}
	}
	busy := false
	locality := b.localityOf(st, r.Client)
	pick := lb.Request{Hash: r.Hash, Rand: rand.Uint64()}
	for try := range pickTries {
		if len(st.tiers) == 0 {
			break
		}
		pick.Seq = b.seq.Add(1)
		i := st.pick(pick, locality, try)
		if i == nil {
			break
		}
		if !tried.has(i) {
			if c, ok := b.take(i, r.ActiveMax); ok {
				return c, nil
			}
			busy = true
		}
		pick.Rand = rand.Uint64()
	}
	return b.search(st, r, tried, busy)
}

// localityOf is where a client is; 0: that is not known, or of no matter.
func (b *Backend) localityOf(st *state, client netip.Addr) uint16 {
	if b.d.cfg.Locality == nil || st.hashed || st.service == nil || !st.service.HasNear() || !client.IsValid() {
		return 0
	}
	return b.d.cfg.Locality(client)
}

// pick picks the try-th choice, of the zone that is drawn for a locality if it has any;
// nil: there are not so many.
func (s *state) pick(r lb.Request, locality uint16, try int) *instance {
	n := 0
	if len(s.loads) > 0 {
		if s.hashed {
			n, _ = lb.DrawTier(s.loads, mix(r.Hash))
		} else {
			n, r.Rand = lb.DrawTier(s.loads, r.Rand)
		}
	}
	t := &s.tiers[n]
	if locality != 0 {
		if set := s.service.Nearest(locality, r.Rand); set != nil {
			if zone := t.zones[set.Name()]; zone != nil {
				t, r.Rand = zone, mix(r.Rand)
			}
		}
	}
	k := 1
	if s.hashed {
		k += try // a hash's next choice is its next rank
	}
	var buf [pickTries]uint32
	picked := t.picker.Pick(buf[:0], k, r)
	if len(picked) < k {
		return nil
	}
	return t.list[picked[k-1]]
}

// search looks through all instances, from anywhere, for one that will do.
func (b *Backend) search(st *state, r Request, tried *Tried, busy bool) (Choice, error) {
	seen := 0
	for t := range st.tiers {
		list := st.tiers[t].list
		from := 0
		if len(list) > 0 {
			from = rand.IntN(len(list))
		}
		for n := range list {
			i := list[(from+n)%len(list)]
			if tried.has(i) {
				seen++
				continue
			}
			if c, ok := b.take(i, r.ActiveMax); ok {
				return c, nil
			}
			busy = true
		}
	}
	switch {
	case busy:
		b.d.counts.busy.Add(1)
		return Choice{}, fmt.Errorf("%s: %w", b.describe(st), ErrBusy)
	case seen > 0:
		return Choice{}, fmt.Errorf("%s: %w", b.describe(st), ErrTried)
	default:
		b.d.counts.none.Add(1)
		return Choice{}, fmt.Errorf("%s: %w", b.describe(st), ErrNone)
	}
}

// take takes a place in flight at an instance; false: it has none.
func (b *Backend) take(i *instance, limit int64) (Choice, bool) {
	if limit > 0 && i.load.Active.Load() >= limit {
		return Choice{}, false
	}
	trial, ok := i.ejection.admit()
	if !ok {
		return Choice{}, false
	}
	i.load.Active.Add(1)
	b.active.Add(1)
	i.total.Add(1)
	b.d.counts.choices.Add(1)
	return Choice{i: i, t: i.term.Load(), trial: trial}, true
}

// describe says in what state the service is, for errors.
func (b *Backend) describe(st *state) string {
	what := "service " + b.ref.Service
	switch {
	case b.ref.Port != "":
		what += ", port " + b.ref.Port
	case b.ref.Tag != "":
		what += ", tag " + b.ref.Tag
	}
	switch {
	case st.service == nil:
		return what + " is not registered"
	case st.members == 0:
		return what + " has no instance with such a port"
	default:
		n := 0
		for t := range st.tiers {
			n += len(st.tiers[t].list)
		}
		return fmt.Sprintf("%s has %d of %d instances in (%s)", what, n, st.members, st.mode)
	}
}

// Describe says in one line what may be chosen from now: "service web has 2 of
// 3 instances in (normal)".
func (b *Backend) Describe() string { return b.describe(b.refresh()) }

// mix spreads a hash over a whole word (SplitMix64's finalizer).
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// tick lets costs decay and looks at ejections, and with last ends a round.
func (b *Backend) tick(now time.Time, last bool) {
	b.mu.Lock()
	due := false
	for _, i := range b.instances {
		i.decay(now)
		due = i.ejection.due(now) || due
	}
	b.mu.Unlock()
	if due {
		b.epoch.Add(1) // it may be picked, for a trial
	}
	if last {
		b.round(now, true)
	}
}
