package authority

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// RateLimit bounds what a forged source address can have us send to its owner: how
// many like responses a network gets in a second over UDP. Like are the answers
// for one name (for a wildcard, whatever it makes), the negative answers of one
// zone, and errors. Clients with a valid DNS cookie are not limited, and streams
// are not.
type RateLimit struct {
	PerSecond int            // 0: no limit; at most RateMax. A second's worth may come at once
	Slip      int            // every how manieth response over the limit is sent empty, with TC, so that a true client comes back over TCP; 0: none
	Exempt    []netip.Prefix // who is not limited
}

// RateMax bounds RateLimit.PerSecond and RateLimit.Slip.
const RateMax = 1_000_000

// What counts as one network: as much as one who forges addresses may aim at, and
// one site usually has.
const (
	limitBits4 = 24
	limitBits6 = 56
)

// The table has bucketLines lines of a cache line each: 1 MiB, for 131,072
// networks and names at once.
const (
	bucketLines = 1 << 14
	bucketWays  = 8
)

// A bucket is one word: tagBits of the hash of what it is for, and the time at
// which its debt is paid, in microseconds modulo 2^timeBits.
const (
	tagBits  = 24
	timeBits = 64 - tagBits
	timeMask = 1<<timeBits - 1
	second   = 1_000_000 // microseconds
	casTries = 4         // a bucket that others change that often is one that is flooded
)

type bucketLine [bucketWays]atomic.Uint64

// limiter is a RateLimit made ready. Workers share its table without locks: a
// bucket is changed by compare and swap. One that is lost to another of its line
// lets its network have a second's worth again, and is counted.
type limiter struct {
	cost    int64 // of one response, microseconds
	slip    uint64
	exempt  []netip.Prefix
	seed    maphash.Seed // so that nobody can choose whom to share a bucket with
	lines   []bucketLine
	evicted atomic.Uint64 // buckets in debt that made room for others
}

// newLimiter returns nil for no limit. It goes on with the table of the limiter
// before, if there is one.
func newLimiter(c RateLimit, before *limiter) (*limiter, error) {
	switch {
	case c.PerSecond < 0 || c.PerSecond > RateMax:
		return nil, fmt.Errorf("RateLimit.PerSecond: %d: must be 0 to %d", c.PerSecond, RateMax)
	case c.Slip < 0 || c.Slip > RateMax:
		return nil, fmt.Errorf("RateLimit.Slip: %d: must be 0 to %d", c.Slip, RateMax)
	case c.PerSecond == 0:
		return nil, nil
	}
	l := &limiter{cost: second / int64(c.PerSecond), slip: uint64(c.Slip), exempt: slices.Clone(c.Exempt)}
	if before != nil {
		l.seed, l.lines = before.seed, before.lines
		l.evicted.Store(before.evicted.Load())
	} else {
		l.seed, l.lines = maphash.MakeSeed(), make([]bucketLine, bucketLines)
	}
	return l, nil
}

// limit decides, once a response has been built, whether it is sent; what becomes
// of it is its outcome then.
func (s *scratch) limit(o Outcome) Outcome {
	l := s.p.limit
	if l == nil || s.from.Transport != dnsserver.UDP || s.from.Known || contains(l.exempt, s.client) {
		return o
	}
	if l.take(s.likeness(l, o), s.from.Now/1000) {
		return o
	}
	if l.slip == 0 || s.from.Rand>>32%l.slip != 0 {
		return Limited
	}
	s.b.Clear()
	if s.q.Asked&wire.AskedCookie != 0 { // RFC 7873 section 5.2.3: it has a cookie now
		s.b.SetAA(false)
		return CookieWanted
	}
	s.b.SetTC()
	return Slipped
}

// likeness is the hash of the bucket that a response is charged to.
func (s *scratch) likeness(l *limiter, o Outcome) uint64 {
	var name []byte
	class := o
	switch o {
	case Answered, AliasOnly, TooLong, Referred:
		name, class = s.q.Name.Suffix(s.made), Answered
	case NoData, NXDomain: // of one kind: who asks at random gets either
		name, class = s.a.Zone.Apex().Wire(), NXDomain
	default:
	}
	return mix(maphash.Bytes(l.seed, name) ^ mix(network(s.client)+uint64(class)))
}

// network is the part of an address that is limited together.
func network(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:])>>(32-limitBits4)) << 8
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])>>(64-limitBits6)<<(64-limitBits6) | 1
}

// mix is SplitMix64's finalizer.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// take charges a response to a bucket, and reports whether its network may have
// it. now is in microseconds.
func (l *limiter) take(hash uint64, now int64) bool {
	line := &l.lines[hash%bucketLines]
	tag := hash >> timeBits
	for range casTries {
		var victim *atomic.Uint64
		var lost uint64
		least := int64(second) * 4 // more than any debt
		for i := range line {
			w := line[i].Load()
			if w>>timeBits == tag {
				return l.charge(&line[i], w, now)
			}
			if d := debt(w, now); d < least {
				victim, lost, least = &line[i], w, d
			}
		}
		if victim.CompareAndSwap(lost, tag<<timeBits|uint64(now+l.cost)&timeMask) {
			if least > 0 {
				l.evicted.Add(1)
			}
			return true
		} // else another worker was faster, perhaps with the same bucket
	}
	return false
}

// charge is the bucket as a clock that each response puts forward by its cost,
// and that may run ahead by a second (the generic cell rate algorithm).
func (l *limiter) charge(bucket *atomic.Uint64, w uint64, now int64) bool {
	for range casTries {
		d := debt(w, now)
		if d+l.cost > second {
			return false
		}
		if bucket.CompareAndSwap(w, w&^timeMask|uint64(now+d+l.cost)&timeMask) {
			return true
		}
		next := bucket.Load()
		if next>>timeBits != w>>timeBits {
			return true // it has become another's meanwhile
		}
		w = next
	}
	return false
}

// debt is how far ahead of now a bucket's clock is, in microseconds. A time that
// no debt can reach is long past: the clock has gone round.
func debt(w uint64, now int64) int64 {
	d := (int64(w&timeMask) - now) & timeMask
	if d > 2*second {
		return 0
	}
	return d
}

// RateLimitEvictions is how many buckets of the rate limit were lost while they
// limited someone, as there were too many.
func (h *Handler) RateLimitEvictions() uint64 {
	if l := h.policy.Load().limit; l != nil {
		return l.evicted.Load()
	}
	return 0
}

// made is how many leading labels of a name just looked up stand for any: those
// that a wildcard made, or a key to hash.
func made(a *zones.Answer) int {
	const key = 2 // "KEY._hash"
	if a.Hashed {
		return key
	}
	if a.Kind == zones.Referral {
		return a.Owner
	}
	return a.Made
}
