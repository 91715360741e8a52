package pool

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/registry"
)

// View is what queries are answered from: every service as one immutable
// object. Reading takes no lock and allocates nothing. The Pool's writer alone
// changes it, service by service; an answer that touches one service sees one
// moment of it. What needs one moment of several asks the writer, as Pool.State
// does.
type View struct {
	seed      maphash.Seed
	services  table[Service, *Service]
	addresses table[AddressNames, *AddressNames]
	listings  table[Listing, *Listing]
	sources   atomic.Pointer[[]*SourceView] // indexed by SourceID
	clock     atomic.Int64                  // nanoseconds since 1970, up to clockStep old
}

// clockStep is how often Run renews the View's clock: ages and staleness are
// stated in seconds.
const clockStep = time.Second

func (v *View) init() {
	v.seed = maphash.MakeSeed()
	v.services.init()
	v.addresses.init()
	v.listings.init()
	v.sources.Store(&[]*SourceView{})
}

// Find returns the service of a source by its name in wire form relative to
// the zone, lower case, without a root: "\x03web\x04prod". It is nil when there
// is neither a service of that name nor one below it; see Service.Ancestor for
// the latter.
func (v *View) Find(source registry.SourceID, name []byte) *Service {
	return v.services.get(hashKey(v.seed, uint16(source), name), uint16(source), name)
}

// Address returns the instances that have an address; nil when there are none
// or no such index is kept.
func (v *View) Address(a netip.Addr) *AddressNames {
	b := a.Unmap().As16()
	return v.addresses.get(hashKey(v.seed, addressSpace, b[:]), addressSpace, b[:])
}

// Source returns what is known of a source; nil when it is not configured.
func (v *View) Source(id registry.SourceID) *SourceView {
	s := *v.sources.Load()
	if int(id) >= len(s) {
		return nil
	}
	return s[id]
}

// Sources returns what is known of every source, by id; ids that are not
// configured are nil. Not to be written to.
func (v *View) Sources() []*SourceView { return *v.sources.Load() }

// Clock is the wall clock in nanoseconds since 1970, up to a second old: for
// readers who have no clock of their own.
func (v *View) Clock() int64 { return v.clock.Load() }

// SourceView is the state of one source as readers see it. Its methods are
// safe for concurrent use and allocate nothing.
type SourceView struct {
	view *View
	id   registry.SourceID
	apex string        // the zone's name in wire form, root included
	ttl  atomic.Uint32 // of the zone, in seconds

	asOf       atomic.Int64  // nanoseconds since 1970; 0: no state yet
	snapshot   atomic.Bool   // the state came from a file
	staleAfter atomic.Int64  // nanoseconds
	maxStale   atomic.Int64  // nanoseconds; 0: never
	serial     atomic.Uint32 // of the zone
	services   atomic.Int64  // answered, ancestors not counted
	heldUntil  atomic.Int64  // nanoseconds since 1970; 0: never held
	routes     atomic.Pointer[[]registry.Route]
}

// Freshness is how far a source's state can be trusted. Zero is NotReady.
type Freshness uint8

// The degrees of freshness.
const (
	NotReady Freshness = iota // no complete state yet: nothing is known
	Fresh
	Stale   // older than stale_after, or from a snapshot
	Expired // older than max_stale: not to be served
)

// String is the degree's name: "not ready", "fresh", "stale", "expired".
func (f Freshness) String() string {
	switch f {
	case NotReady:
		return "not ready"
	case Fresh:
		return "fresh"
	case Stale:
		return "stale"
	case Expired:
		return "expired"
	default:
		return "invalid"
	}
}

// Freshness judges the state at the time now, in nanoseconds since 1970, and
// returns its age in whole seconds.
func (s *SourceView) Freshness(now int64) (_ Freshness, age uint32) {
	asOf := s.asOf.Load()
	if asOf == 0 {
		return NotReady, 0
	}
	d := max(now-asOf, 0)
	age = uint32(min(d/int64(time.Second), 1<<32-1))
	if limit := s.maxStale.Load(); limit > 0 && d > limit {
		return Expired, age
	}
	if s.snapshot.Load() || d > s.staleAfter.Load() {
		return Stale, age
	}
	return Fresh, age
}

// ID is the source's id.
func (s *SourceView) ID() registry.SourceID { return s.id }

// Apex is the name of the source's zone in wire form, root included.
func (s *SourceView) Apex() string { return s.apex }

// TTL is the zone's TTL in seconds.
func (s *SourceView) TTL() uint32 { return s.ttl.Load() }

// Clock is View.Clock.
func (s *SourceView) Clock() int64 { return s.view.clock.Load() }

// Serial is the zone's serial number: max(previous + 1, seconds since 1970) at
// the last change of what the zone contains.
func (s *SourceView) Serial() uint32 { return s.serial.Load() }

// Held reports whether removals are held at the time now, in nanoseconds since
// 1970: half of the zone fell at once.
func (s *SourceView) Held(now int64) bool { return now < s.heldUntil.Load() }

// Services is how many services the zone answers.
func (s *SourceView) Services() int { return int(s.services.Load()) }

// raiseSerial is called by the writer after a change. Serial numbers compare
// modulo 2^32 (RFC 1982), of which seconds use half until 2038 and after.
func (s *SourceView) raiseSerial(now time.Time) {
	next := s.serial.Load() + 1
	if u := uint32(now.Unix()); int32(u-next) > 0 {
		next = u
	}
	s.serial.Store(next)
}
