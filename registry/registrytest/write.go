package registrytest

import (
	"errors"
	"time"

	"github.com/musterdns/muster/registry"
)

const (
	// leaseTTL is longer than a busy machine may keep a holder from renewing it: none
	// of these leases is to be lost by itself. What is revoked is noticed when it is
	// renewed next, after a third of it.
	leaseTTL = 15 * time.Second
	// leaseTTLMin is the shortest lease that every etcd grants as asked: the default
	// election timeout of 1 s makes 2 s the least.
	leaseTTLMin = 2 * time.Second
)

func applyConditions(b *bench) {
	key := instance("web", "a")
	apply := func(ops ...registry.Op) error {
		_, err := b.source.Apply(b.ctx(), ops)
		return err
	}
	if _, err := b.source.Get(b.ctx(), key); !errors.Is(err, registry.ErrNotFound) {
		b.t.Errorf("Get of nothing: %v, want ErrNotFound", err)
	}
	revision := b.apply(registry.Op{Key: key, Value: []byte("10.0.0.1:80"), Create: true})
	record, err := b.source.Get(b.ctx(), key)
	if err != nil || record.Revision != revision || string(record.Value) != "10.0.0.1:80" || record.Leased {
		b.t.Errorf("Get: %+v, %v", record, err)
	}
	tests := []struct {
		name string
		op   registry.Op
		want error
	}{
		{"Create of what exists", registry.Op{Key: key, Value: []byte("x"), Create: true}, registry.ErrExists},
		{"IfRevision of an older one", registry.Op{Key: key, Value: []byte("x"), IfRevision: revision - 1}, registry.ErrChanged},
		{"IfRevision of what is not there", registry.Op{Key: instance("web", "z"), Value: []byte("x"), IfRevision: 1}, registry.ErrNotFound},
		{"KeepLease of what is not there", registry.Op{Key: instance("web", "z"), Value: []byte("x"), KeepLease: true}, registry.ErrNotFound},
	}
	for _, test := range tests {
		other := registry.Op{Key: instance("web", "other"), Value: []byte("10.0.0.2:80")}
		if err := apply(other, test.op); !errors.Is(err, test.want) {
			b.t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if _, err := b.source.Get(b.ctx(), other.Key); !errors.Is(err, registry.ErrNotFound) {
			b.t.Errorf("%s: the other write was made", test.name)
		}
	}
	if err := apply(registry.Op{Key: key, IfRevision: revision}); err != nil {
		b.t.Errorf("delete at the revision read: %v", err)
	}
	if _, err := b.source.Get(b.ctx(), key); !errors.Is(err, registry.ErrNotFound) {
		b.t.Errorf("Get of what was deleted: %v, want ErrNotFound", err)
	}
	if err := apply(); err == nil {
		b.t.Error("an empty transaction was accepted")
	}
	if err := apply(registry.Op{Key: registry.Key{Source: id + 1, Kind: registry.KindService, Service: "web"}, Value: []byte("{}")}); err == nil {
		b.t.Error("a record of another source was accepted")
	}
}

func applyKeepLease(b *bench) {
	key := instance("web", "a")
	lease := b.hold(key, `{"address":"10.0.0.1"}`)
	b.apply(registry.Op{Key: key, Value: []byte(`{"address":"10.0.0.1","weight":9}`), KeepLease: true})
	if record, err := b.source.Get(b.ctx(), key); err != nil || !record.Leased {
		b.t.Errorf("Get: %+v, %v, want a leased record", record, err)
	}
	if err := lease.Close(b.ctx()); err != nil {
		b.t.Error(err)
	}
	if _, err := b.source.Get(b.ctx(), key); !errors.Is(err, registry.ErrNotFound) {
		b.t.Errorf("Get after Close: %v, want ErrNotFound", err)
	}
}

// hold holds a record, which the test closes.
func (b *bench) hold(key registry.Key, value string) registry.Lease {
	b.t.Helper()
	lease, err := b.source.Hold(b.ctx(), key, []byte(value), leaseTTL)
	if err != nil {
		b.t.Fatal(err)
	}
	return lease
}

func holdClose(b *bench) {
	r := b.record()
	lease := b.hold(instance("web", "a"), `10.0.0.1:80`)
	r.Await("the held instance", func(s State) bool { return s.Instances[instance("web", "a")].Leased })
	if err := lease.Update(b.ctx(), []byte(`10.0.0.2:80`)); err != nil {
		b.t.Fatal(err)
	}
	r.Await("its update, still held", func(s State) bool {
		in := s.Instances[instance("web", "a")]
		return in.Leased && in.Addresses[0].String() == "10.0.0.2"
	})
	if err := lease.Close(b.ctx()); err != nil {
		b.t.Fatal(err)
	}
	r.Await("its end", func(s State) bool { return len(s.Instances) == 0 })
	if err := lease.Close(b.ctx()); err != nil {
		b.t.Errorf("a second Close: %v", err)
	}
}

// holdSucceeded has an instance registered again, as by a new process, before the old
// one has gone.
func holdSucceeded(b *bench) {
	r := b.record()
	old := b.hold(instance("web", "a"), `10.0.0.1:80`)
	next := b.hold(instance("web", "a"), `10.0.0.2:80`)
	if err := old.Close(b.ctx()); err != nil {
		b.t.Fatal(err)
	}
	b.put("instances/web/last", `10.0.0.3:80`)
	r.Await("what was done last", func(s State) bool { _, ok := s.Instances[instance("web", "last")]; return ok })
	if in, there := r.State().Instances[instance("web", "a")]; !there || in.Addresses[0].String() != "10.0.0.2" {
		b.t.Errorf("after the end of the old registration: %v, %t", in.Addresses, there)
	}
	if err := next.Close(b.ctx()); err != nil {
		b.t.Error(err)
	}
}

func holdLost(b *bench) {
	r := b.record()
	lease := b.hold(instance("web", "a"), `10.0.0.1:80`)
	r.Await("the instance", func(s State) bool { return len(s.Instances) == 1 })
	first := r.State().Instances[instance("web", "a")].Incarnation
	b.store.RevokeLease(b.prefix + "/instances/web/a")
	<-lease.Lost()
	r.Await("another life of it", func(s State) bool {
		in, ok := s.Instances[instance("web", "a")]
		return ok && in.Incarnation > first && in.Leased
	})
	if err := lease.Close(b.ctx()); err != nil {
		b.t.Error(err)
	}
	r.Await("its end", func(s State) bool { return len(s.Instances) == 0 })
}

func holdExpires(b *bench) {
	if b.network == nil {
		return
	}
	key := instance("web", "a")
	lease, err := b.source.Hold(b.ctx(), key, []byte(`10.0.0.1:80`), leaseTTLMin)
	if err != nil {
		b.t.Fatal(err)
	}
	b.network.Stall()
	select {
	case <-lease.Lost():
	case <-time.After(awaitMax):
		b.t.Fatal("the lease is not lost")
	}
	b.network.Heal()
	r := b.record()
	r.Await("the instance again", func(s State) bool { return s.Instances[key].Leased })
	if err := lease.Close(b.ctx()); err != nil {
		b.t.Error(err)
	}
}

// holdTells ends held instances in every way there is.
func holdTells(b *bench) {
	r := b.record()
	ends := map[string]struct {
		lost bool
		end  func(name string, lease registry.Lease)
	}{
		"closed": {false, func(_ string, lease registry.Lease) {
			if err := lease.Close(b.ctx()); err != nil {
				b.t.Error(err)
			}
		}},
		"revoked": {true, func(_ string, lease registry.Lease) {
			if err := lease.Revoke(b.ctx()); err != nil {
				b.t.Error(err)
			}
		}},
		"applied": {false, func(name string, _ registry.Lease) { b.apply(registry.Op{Key: instance("web", name)}) }},
		"deleted": {false, func(name string, _ registry.Lease) { b.delete("instances/web/" + name) }},
		"taken-out": {false, func(name string, _ registry.Lease) {
			b.put("instances/web/"+name, "10.0.0.1:80")
			b.delete("instances/web/" + name)
		}},
	}
	leases := map[string]registry.Lease{}
	for name := range ends {
		leases[name] = b.hold(instance("web", name), `10.0.0.1:80`)
	}
	r.Await("every instance", func(s State) bool { return len(s.Instances) == len(ends) })
	for name, e := range ends {
		e.end(name, leases[name])
	}
	r.Await("their end", func(s State) bool { return len(s.Instances) == 0 })
	for name, e := range ends {
		if lost := r.State().Lost[instance("web", name)]; lost != e.lost {
			b.t.Errorf("%s: lost %t, want %t", name, lost, e.lost)
		}
		if err := leases[name].Close(b.ctx()); err != nil {
			b.t.Error(err)
		}
	}
}

// applyLease puts a report under the lease of a member.
func applyLease(b *bench) {
	lease, err := b.source.Hold(b.ctx(), registry.Key{Source: id, Kind: registry.KindMember, Name: "ns1-x"}, []byte("{}"), leaseTTL)
	if err != nil {
		b.t.Fatal(err)
	}
	r := b.record()
	key := registry.Key{Source: id, Kind: registry.KindHealth, Service: "web", Name: "a", Sub: "ns1-x"}
	b.apply(registry.Op{Key: key, Value: []byte(`{"state":"failing"}`), Lease: lease})
	if record, err := b.source.Get(b.ctx(), key); err != nil || !record.Leased {
		b.t.Errorf("Get: %+v, %v, want a leased record", record, err)
	}
	r.Await("the report", func(s State) bool { return len(s.Reports) == 1 && len(s.Members) == 1 })
	if err := lease.Revoke(b.ctx()); err != nil {
		b.t.Fatal(err)
	}
	r.Await("the end of both", func(s State) bool { return len(s.Reports)+len(s.Members) == 0 })
	if _, err := b.source.Apply(b.ctx(), []registry.Op{{Key: key, Value: []byte(`{"state":"failing"}`), Lease: lease}}); !errors.Is(err, registry.ErrLost) {
		b.t.Errorf("Apply under a lease that ended: %v, want ErrLost", err)
	}
}
