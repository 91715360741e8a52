// Package authority answers queries from a tree of zones: RFC 1034 section
// 4.3.2 with aliases followed from zone to zone, negative answers by RFC 2308,
// referrals, ANY by RFC 8482, and extended errors by RFC 8914. What lies in no
// zone is refused, or passed on to resolvers where that is configured.
//
// Answers are minimal: the authority section has the SOA of a negative answer
// or the NS of a referral, and nothing else.
package authority

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// Config says who is answered and how. The zero Config answers everyone, hides
// what the server is, and forwards nothing.
type Config struct {
	Access []Rule // who may ask for what; none: everyone for everything
	// WhyAllow is who may ask dynamic zones for names that begin with `_why`,
	// which tell what is behind an answer. None: loopback.
	WhyAllow []netip.Prefix
	Chaos    Chaos
	Forward  Forward
	// SubnetsFrom are the resolvers whose word is taken for which network their
	// client is in (RFC 7871). None: nobody's, and the option is passed over.
	SubnetsFrom []netip.Prefix
	// Locality says where a client is, of whose address the first bits are known: a
	// number that zones know, 0 if it is not known, and how many bits decided that. It
	// takes no lock and allocates nothing. Nil: it is not asked.
	Locality  func(client netip.Addr, bits uint8) (locality uint16, scope uint8)
	RateLimit RateLimit
	Transfer  []Transfer
}

// Chaos is what the names of class CH tell (RFC 4892 and custom): text of at most
// 255 octets. An empty one is refused.
type Chaos struct {
	Version string // version.bind and version.server
	ID      string // hostname.bind and id.server
}

// Handler answers queries. It is safe for concurrent use; New makes one.
type Handler struct {
	tree    atomic.Pointer[zones.Tree] // latest value; SetTree writes
	policy  atomic.Pointer[policy]     // latest value; SetConfig writes
	scratch sync.Pool                  // of *scratch
	shards  []shard                    // of counters; a scratch keeps to one
	next    atomic.Uint32              // shard for the next scratch

	journal   journal
	transfers chan struct{} // slots
	signers   chan struct{} // slots
}

var (
	_ dnsserver.Handler     = (*Handler)(nil)
	_ dnsserver.SlowHandler = (*Handler)(nil)
	_ dnsserver.Warmer      = (*Handler)(nil)
)

// policy is a Config made ready. Immutable.
type policy struct {
	rules   []rule // those with the longest zone first
	why     []netip.Prefix
	subnets []netip.Prefix // whose client subnets are believed
	version []byte         // character-string (RFC 1035 section 3.3); empty: refused
	id      []byte
	forward *forwarder // nil: nothing is forwarded
	limit   *limiter   // nil: there is none

	transfer []transferRule
	locality func(netip.Addr, uint8) (uint16, uint8) // nil: clients may be anywhere
}

// scratch is what one query needs that escapes to the heap, kept for the next:
// so the query path allocates nothing.
type scratch struct {
	b    *wire.Builder
	q    *wire.Query
	from *dnsserver.Client
	p    *policy
	tree *zones.Tree
	// client is who asks, by which it is decided what it may; whom the answer is
	// chosen for, by req.Client.
	client netip.Addr
	subnet bool  // the query's client subnet is believed
	scope  uint8 // how many bits of that decided the answer
	made   int   // leading labels of the question's name that stand for any
	req    zones.Request
	a      zones.Answer
	shard  *shard

	names  [chainMax]wire.Name // what aliases led to
	dnames [chainMax]dname     // by which they did, where it was a DNAME
	hops   int                 // how many aliases were followed
	wild   [chainMax + 1]wild  // what was made from wildcards, and is to be proven
	wilds  int

	lent     bool         // the addresses are another name's
	inline   bool         // what is not signed yet is signed now
	unsigned bool         // something is not: the answer is to be deferred
	probe    zones.Answer // of another type of the name, or of another name
	target   wire.Name    // of an SRV record
}

// New returns a Handler without zones: it refuses everything until SetTree.
func New(c Config) (*Handler, error) {
	half := max(1, runtime.GOMAXPROCS(0)/2) // of the cores
	h := &Handler{shards: make([]shard, runtime.GOMAXPROCS(0)), transfers: make(chan struct{}, transfersMax), signers: make(chan struct{}, half)}
	h.journal.exports = make(chan struct{}, half)
	if err := h.SetConfig(c); err != nil {
		return nil, err
	}
	tree, err := zones.NewTree(nil)
	if err != nil {
		return nil, err
	}
	h.tree.Store(tree)
	h.scratch.New = func() any {
		return &scratch{shard: &h.shards[int(h.next.Add(1))%len(h.shards)]}
	}
	return h, nil
}

// SetTree makes t what queries are answered from; those under way finish with
// the tree they began with.
func (h *Handler) SetTree(t *zones.Tree) { h.tree.Store(t) }

// Allows reports whether a client may ask for a name.
func (h *Handler) Allows(name *wire.Name, client netip.Addr) bool {
	p := h.policy.Load()
	return p.allows(name, client) && (!explains(name) || contains(p.why, client))
}

// Tree is what queries are answered from.
func (h *Handler) Tree() *zones.Tree { return h.tree.Load() }

// SetConfig replaces the configuration; on an error the one before stays.
func (h *Handler) SetConfig(c Config) error {
	commit, err := h.Prepare(c)
	if err == nil {
		commit()
	}
	return err
}

// Prepare is SetConfig that changes nothing until commit is called.
func (h *Handler) Prepare(c Config) (commit func(), err error) {
	p := &policy{why: c.WhyAllow, subnets: c.SubnetsFrom, locality: c.Locality}
	if p.why == nil {
		p.why = loopback()
	}
	if p.rules, err = newRules(c.Access); err != nil {
		return nil, err
	}
	if p.transfer, err = newTransferRules(c.Transfer); err != nil {
		return nil, err
	}
	if p.version, err = characterString("Chaos.Version", c.Chaos.Version); err != nil {
		return nil, err
	}
	if p.id, err = characterString("Chaos.ID", c.Chaos.ID); err != nil {
		return nil, err
	}
	if p.forward, err = newForwarder(c.Forward); err != nil {
		return nil, err
	}
	var before *limiter
	if old := h.policy.Load(); old != nil {
		before = old.limit
	}
	if p.limit, err = newLimiter(c.RateLimit, before); err != nil {
		return nil, err
	}
	return func() { h.policy.Store(p) }, nil
}

// characterString is s behind its length, nothing for the empty s.
func characterString(field, s string) ([]byte, error) {
	if len(s) > 255 {
		return nil, fmt.Errorf("%s: %d octets, at most 255", field, len(s))
	}
	if s == "" {
		return nil, nil
	}
	return slices.Concat([]byte{byte(len(s))}, []byte(s)), nil
}
