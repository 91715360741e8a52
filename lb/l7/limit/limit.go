// Package limit holds rates of requests to a limit, one token bucket a key, in
// a table of a bounded size that forgets who has not been seen for longest.
//
// A request costs a hash, a lookup and one of sixteen locks, which is held for as
// long; a key that is new costs an allocation. The package has no clock.
package limit

import (
	"crypto/sha256"
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// shards of a table, so that cores do not wait for one another.
	shards = 16
	// perShard is the number of keys of a shard. Who is forgotten begins again
	// with a full bucket: an attacker with more addresses than that is not held
	// by a limit each anyway.
	perShard = 4096
)

// KeysMax is the number of keys that a Limiter knows at most.
const KeysMax = shards * perShard

// keyMax is the size in octets up to which a key is kept as it is; of a longer
// one, which a client may make as long as a head, a hash.
const keyMax = 64

// Limiter is one limit. It is safe for concurrent use.
type Limiter struct {
	rate, burst float64
	seed        maphash.Seed
	evicted     *atomic.Uint64
	shards      [shards]shard
}

type shard struct {
	mu      sync.Mutex
	buckets map[string]*bucket
	// The least recently used bucket and the most recently used.
	first, last *bucket
}

type bucket struct {
	key        string
	tokens     float64
	at         time.Time
	prev, next *bucket
}

// New returns a Limiter of rate requests a second on average and burst at once;
// burst 0 is one second's worth, at least 1. Keys that are forgotten for others are
// counted in evicted.
func New(rate float64, burst int, evicted *atomic.Uint64) *Limiter {
	l := &Limiter{rate: rate, burst: float64(burst), seed: maphash.MakeSeed(), evicted: evicted}
	if burst == 0 {
		l.burst = max(math.Ceil(rate), 1)
	}
	for i := range l.shards {
		l.shards[i].buckets = map[string]*bucket{}
	}
	return l
}

// Take takes one token of a key at the time now. When there is none it returns
// how long until there is.
func (l *Limiter) Take(key string, now time.Time) (ok bool, wait time.Duration) {
	key = short(key)
	s := &l.shards[maphash.String(l.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.find(key)
	if b == nil {
		var instead bool
		if b, instead = s.add(key); instead {
			l.evicted.Add(1)
		}
		b.tokens, b.at = l.burst, now
	}
	if elapsed := now.Sub(b.at); elapsed > 0 {
		b.tokens = min(l.burst, b.tokens+elapsed.Seconds()*l.rate)
		b.at = now
	}
	if b.tokens < 1 {
		return false, time.Duration((1 - b.tokens) / l.rate * float64(time.Second))
	}
	b.tokens--
	return true, 0
}

// Would reports what Take would, and takes nothing.
func (l *Limiter) Would(key string, now time.Time) bool {
	key = short(key)
	s := &l.shards[maphash.String(l.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[key]
	return b == nil || b.tokens+now.Sub(b.at).Seconds()*l.rate >= 1
}

// short is a key of a bounded size.
func short(key string) string {
	if len(key) <= keyMax {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return string(sum[:])
}

// Keys is how many keys are known.
func (l *Limiter) Keys() (known int) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		known += len(s.buckets)
		s.mu.Unlock()
	}
	return known
}

// find returns the bucket of a key as the most recently used; nil: none.
func (s *shard) find(key string) *bucket {
	b := s.buckets[key]
	if b != nil && s.last != b {
		s.unlink(b)
		s.link(b)
	}
	return b
}

// add makes the bucket of a key that has none, in the place of the least
// recently used one when the shard is full: instead of another.
func (s *shard) add(key string) (b *bucket, instead bool) {
	b = s.first
	if instead = len(s.buckets) == perShard; instead {
		s.unlink(b)
		delete(s.buckets, b.key)
	} else {
		b = &bucket{}
	}
	b.key = strings.Clone(key) // it may be a part of a whole head
	s.buckets[b.key] = b
	s.link(b)
	return b, instead
}

func (s *shard) link(b *bucket) {
	b.prev, b.next = s.last, nil
	if s.last != nil {
		s.last.next = b
	} else {
		s.first = b
	}
	s.last = b
}

func (s *shard) unlink(b *bucket) {
	if b.prev != nil {
		b.prev.next = b.next
	} else {
		s.first = b.next
	}
	if b.next != nil {
		b.next.prev = b.prev
	} else {
		s.last = b.prev
	}
}
