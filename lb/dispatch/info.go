package dispatch

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/pool"
)

// Info is a Backend as an operator sees it: a value, free to change.
type Info struct {
	Ref       Ref
	Policy    string // empty: the service is not registered
	Mode      pool.Mode
	Active    int64
	Instances []InstanceInfo // by id; those that may be chosen, and those that still have requests
}

// InstanceInfo is one instance as a proxy sees it.
type InstanceInfo struct {
	ID        string
	Addr      netip.AddrPort
	In        bool    // it may be chosen
	Share     float64 // of the choices of a proxy with nothing in flight
	Active    int64   // requests or connections in flight
	Total     int64   // since it came
	Failures  int64
	Ejections int64
	BytesIn   int64 // from its clients
	BytesOut  int64 // to them
	Ejected   bool  // on trial included
	Why       string
}

// Info lists what there is to choose from, of every Backend, by source, service
// and part.
func (d *Dispatcher) Info() []Info {
	var out []Info
	for _, b := range d.sorted() {
		out = append(out, b.Info())
	}
	return out
}

// Info returns what there is to choose from now.
func (b *Backend) Info() Info { return b.info(true) }

// Figures is Info without Why, which costs more than all else: for who asks often.
// Of at most instances instances, with whole Backends before others; leftOut is
// how many more there are.
func (d *Dispatcher) Figures(instances int) (list []Info, leftOut int) {
	for _, b := range d.sorted() {
		in := b.info(false)
		fits := min(len(in.Instances), instances)
		leftOut += len(in.Instances) - fits
		in.Instances = in.Instances[:fits]
		instances -= fits
		list = append(list, in)
	}
	return list, leftOut
}

// sorted are the Backends by source, service and part.
func (d *Dispatcher) sorted() []*Backend {
	list := d.all()
	slices.SortFunc(list, func(x, y *Backend) int {
		a, b := x.ref, y.ref
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Port, b.Port),
			cmp.Compare(a.Tag, b.Tag))
	})
	return list
}

func (b *Backend) info(why bool) Info {
	st := b.refresh()
	out := Info{Ref: b.ref, Mode: st.mode, Active: b.active.Load()}
	if st.service != nil {
		out.Policy = policyOf(st.service)
	}
	shares := st.shares()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range b.instances {
		in := InstanceInfo{
			ID: i.id, Addr: i.addr, Share: shares[i], Active: i.load.Active.Load(), Total: i.total.Load(), Failures: i.failures.Load(), Ejections: i.ejections.Load(),
			BytesIn: i.in.Load(), BytesOut: i.out.Load(), Ejected: i.ejection.state.Load() != ejectNone,
		}
		if why {
			in.Why = b.why(i)
		}
		in.In = st.byID[i.id] == i && !i.ejection.out()
		out.Instances = append(out.Instances, in)
	}
	slices.SortFunc(out.Instances, func(a, b InstanceInfo) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// why says why an instance is in or out.
func (b *Backend) why(i *instance) string {
	switch i.ejection.state.Load() {
	case ejectOut:
		left := time.Until(time.Unix(0, i.ejection.until.Load())).Round(time.Second)
		return fmt.Sprintf("ejected: its requests failed; a trial in %s", max(left, 0))
	case ejectTrial, ejectBusy:
		return "ejected: its requests failed; the next one tries it"
	}
	if s, n := b.registered(i); n >= 0 {
		return s.Why(uint32(n))
	}
	return "not registered any more"
}

// shares are the instances' parts of the choices.
func (s *state) shares() map[*instance]float64 {
	out := map[*instance]float64{}
	for t := range s.tiers {
		load := 1.0
		if len(s.loads) > 0 {
			load = float64(s.loads[t].Load) / 100
		}
		sharer, ok := s.tiers[t].picker.(lb.Sharer)
		if !ok {
			continue
		}
		for n, share := range sharer.Shares(1) {
			out[s.tiers[t].list[n]] = load * share.First
		}
	}
	return out
}

// Preview is the instance that Choose would take for a request and why, without
// a place in flight: by its hash or the instance to keep to. certain is false
// where chance or the load decides; then it is what a policy would pick first.
func (b *Backend) Preview(r Request) (id string, addr netip.AddrPort, certain bool) {
	st := b.refresh()
	if i := st.byID[r.Keep]; i != nil && !i.ejection.out() {
		return i.id, i.addr, true
	}
	if len(st.tiers) == 0 || st.expired() {
		return "", netip.AddrPort{}, true
	}
	i := st.pick(lb.Request{Hash: r.Hash, Seq: b.seq.Load() + 1}, b.localityOf(st, r.Client), 0)
	if i == nil {
		return "", netip.AddrPort{}, true
	}
	return i.id, i.addr, st.hashed || len(st.byID) == 1
}
