package service

import (
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/zones"
)

// partSet is records of a *pool.Set, of which the policy picks: A, AAAA, SRV, HTTPS, SVCB.
type partSet zones.Own

// draw is what a question drew of a set.
type draw struct {
	set     *pool.Set
	service *pool.Service
	group   *pool.Group
	tier    *pool.Tier
	request lb.Request
	hashed  bool // request has a hash to go by
	named   bool // which the name brought
}

// Append implements zones.RRset.
func (o *partSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	set, f := ownOf[pool.Set]((*zones.Own)(o)), familyOf(o.Type)
	res := zones.Result{EDE: zones.EDENone, Scope: localScope(set, r)}
	set = nearest(set, f, r)
	d := draw{set: set, service: set.Service(), group: set.Group(f), named: r.Hashed}
	d.request, d.hashed = request(d.service, r)
	d.tier, d.request = d.group.Draw(d.request, d.hashed)
	if d.tier == nil {
		state(d.service, &res, r.Now)
		mode(b, d.group)
		return res
	}
	switch o.Type {
	case wire.TypeSRV:
		d.services(b, owner, r, &res)
	case wire.TypeHTTPS, wire.TypeSVCB:
		d.bindings(b, owner, r, o.Type, &res)
	default:
		d.addresses(b, owner, r, f, &res)
	}
	res.Scope = max(res.Scope, scope(d.service, r))
	mode(b, d.group)
	return res
}

// wanted is how many instances the policy wants in an answer.
func (d *draw) wanted() int {
	if m := d.service.MaxAnswers(); m > 0 {
		return min(m, d.tier.Size())
	}
	return d.tier.Auto()
}

// pick picks k instances into r.Picks, by the service's policy or by a hash that the name
// brought, and says in res what their records have in common.
func (d *draw) pick(k int, r *zones.Request, res *zones.Result) {
	picks, ok := r.Picks[:0], false
	if d.named {
		picks, ok = d.tier.PickHash(picks, k, d.request)
	}
	if !ok {
		picks = d.tier.Pick(picks, k, d.request)
	}
	r.Picks = picks
	res.TTL = ttlOf(d.service, d.group, d.tier, picks, r.Now)
	state(d.service, res, r.Now)
}

// All implements zones.RRset.
func (o *partSet) All(yield func([]byte) bool) {
	set := ownOf[pool.Set]((*zones.Own)(o))
	switch o.Type {
	case wire.TypeSRV:
		allServices(set, yield)
	case wire.TypeHTTPS, wire.TypeSVCB:
		allBindings(set, yield)
	default:
		allAddresses(set, familyOf(o.Type), yield)
	}
}
