package etcd

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/registry"
)

// ProblemsMax is the number of records that cannot be used that a Source
// reports one by one; one more Problem, with the prefix as its key, says that
// there are others.
const ProblemsMax = 10_000

// IgnoredMax is the number of records with fields that are not known that a Source
// reports; the others are used like them and not told of.
const IgnoredMax = 1000

// lookup reads a key as it was at the revision that a tracker is at; nil when
// it was not there.
type lookup func(ctx context.Context, raw string) (*mvccpb.KeyValue, error)

// tracker turns the keys under one prefix into records. What it delivers is a
// function of what stands in etcd, never of the order in which it came: two
// servers agree, and so do a server and itself restarted. The rules:
//
//   - A key whose value is bad has no record. A good value that it had before
//     is dropped.
//   - Of several keys that fold to one, that in lower case has the record, and
//     if there is none in lower case, the first in byte order. The others are
//     bad until it goes.
//   - An instance whose name is that of a service (web of service prod, beside
//     a service web.prod) is bad until the service goes. The instance and not
//     the service: a name that many clients ask for must not vanish because one
//     instance was registered beside it.
//
// Only the goroutine of Watch uses it.
type tracker struct {
	source registry.SourceID
	format format

	// keys counts everything under the prefix. A linearizable count that
	// differs tells that a deletion was missed.
	keys int64
	// present holds a hash of each key that is in lower case and names a
	// record, good or bad, and the lease that it is under; 16 bytes a key, and
	// with a random seed two in a million keys collide once in 10^7 lists. It is
	// asked only about keys that are spelled twice, and which lease a deleted one
	// was under.
	present map[uint64]clientv3.LeaseID
	seed    maphash.Seed
	// variants are the spellings that are not in lower case, sorted, by the one
	// that is.
	variants map[string][]string
	// bad are the keys with a Problem, ProblemsMax at most; more counts the bad
	// values seen beyond.
	bad  map[string]struct{}
	more int64
	// ignored are the keys of records in use with fields that are not known, IgnoredMax at
	// most, and those fields.
	ignored map[string]string
	// known are those of bad and ignored of the tracker before this one: they are not
	// logged again.
	known map[string]struct{}

	// listing is set while a complete state is read: nothing can have been
	// delivered that would have to be taken back.
	listing bool
	batch   registry.Batch
	fresh   []registry.Problem // of batch, to be logged
	// retracted is set when batch may take back a record of which another
	// spelling is in it too.
	retracted bool
	// left are the deleted instances of batch that were under a lease.
	left []leftover
}

func newTracker(source registry.SourceID, f format, before *tracker) *tracker {
	t := &tracker{
		source: source, format: f, seed: maphash.MakeSeed(),
		present: make(map[uint64]clientv3.LeaseID), variants: make(map[string][]string),
		bad: make(map[string]struct{}), ignored: make(map[string]string), listing: true,
	}
	if before != nil {
		t.known = before.bad
		for raw := range before.ignored {
			t.known[raw] = struct{}{}
		}
		if before.listing { // it did not come to its end
			maps.Copy(t.known, before.known)
		}
	}
	return t
}

// take returns the batch gathered since the last take and the problems in it
// that were not known before.
func (t *tracker) take(revision int64) (registry.Batch, []registry.Problem) {
	b, fresh := t.batch, t.fresh
	b.Source, b.Revision = t.source, revision
	t.batch, t.fresh, t.retracted, t.left = registry.Batch{}, nil, false, nil
	return b, fresh
}

// listed takes in one key of a complete state. Spellings that are not in lower
// case wait for settle, since the one in lower case comes after them.
func (t *tracker) listed(kv *mvccpb.KeyValue) {
	t.keys++
	raw := string(kv.Key)
	key, ok, err := t.parse(raw)
	if err != nil {
		t.problem(raw, kv.ModRevision, err)
	}
	if !ok {
		return
	}
	canonical := t.format.canonical(key, raw)
	if raw != canonical {
		t.variants[canonical] = append(t.variants[canonical], raw)
		return
	}
	t.present[t.hash(canonical)] = clientv3.LeaseID(kv.Lease)
	t.decode(key, kv)
}

// parse is format.Parse with the source set.
func (t *tracker) parse(raw string) (registry.Key, bool, error) {
	key, ok, err := t.format.Parse(raw)
	key.Source = t.source
	return key, ok && err == nil, err
}

// changed takes in the last event of one key. Events of one key before it must
// have been counted (count) and need nothing else.
func (t *tracker) changed(ctx context.Context, kv *mvccpb.KeyValue, deleted bool, at lookup) error {
	raw := string(kv.Key)
	key, ok, err := t.parse(raw)
	switch {
	case err != nil && deleted:
		t.mend(raw)
	case err != nil:
		t.problem(raw, kv.ModRevision, err)
	}
	if !ok {
		return nil
	}
	canonical := t.format.canonical(key, raw)
	before := t.exists(canonical)
	switch {
	case raw != canonical:
		t.spell(canonical, raw, deleted)
	case deleted:
		t.leave(key, t.present[t.hash(canonical)])
		delete(t.present, t.hash(canonical))
	default:
		t.present[t.hash(canonical)] = clientv3.LeaseID(kv.Lease)
	}
	if deleted {
		t.mend(raw)
	}
	if len(t.variants[canonical]) > 0 || raw != canonical && before {
		return t.elect(ctx, canonical, at)
	}
	if deleted {
		t.batch.Deleted = append(t.batch.Deleted, key)
		return nil
	}
	t.decode(key, kv)
	return nil
}

// decode puts a key's record into the batch, or its problem and its end. A route
// does not end by a value that cannot be used: its requests would go to another,
// and a slip would cut off what it was to mend.
func (t *tracker) decode(key registry.Key, kv *mvccpb.KeyValue) {
	raw := string(kv.Key)
	ignored, err := t.format.record(&t.batch, key, kv)
	if err == nil {
		if ignored == "" || !t.ignore(raw, kv.ModRevision, key.Kind, ignored) {
			t.mend(raw)
		}
		if t.retracted {
			t.batch.Deleted = slices.DeleteFunc(t.batch.Deleted, func(k registry.Key) bool { return k == key })
		}
		return
	}
	t.problem(raw, kv.ModRevision, err)
	if key.Kind == registry.KindRoute {
		t.batch.Kept = append(t.batch.Kept, key)
		return
	}
	t.retract(key)
}

// retract takes a record back that an earlier batch, or this one, has
// delivered.
func (t *tracker) retract(key registry.Key) {
	if t.listing {
		return
	}
	t.retracted = true
	b := &t.batch
	switch key.Kind {
	case registry.KindInstance:
		b.Instances = slices.DeleteFunc(b.Instances, func(in registry.Instance) bool { return in.Service == key.Service && in.ID == key.Name })
	case registry.KindService:
		b.Services = slices.DeleteFunc(b.Services, func(s registry.Service) bool { return s.Name == key.Service })
	case registry.KindAdmin:
		b.Admin = slices.DeleteFunc(b.Admin, func(a registry.Admin) bool { return a.Service == key.Service && a.Instance == key.Name })
	case registry.KindLoad:
		b.Loads = slices.DeleteFunc(b.Loads, func(l registry.Load) bool { return l.Service == key.Service && l.Instance == key.Name })
	case registry.KindMember:
		b.Members = slices.DeleteFunc(b.Members, func(m registry.Member) bool { return m.Name == key.Name })
	case registry.KindRoute:
		b.Routes = slices.DeleteFunc(b.Routes, func(r registry.Route) bool { return r.Name == key.Name })
	case registry.KindHealth:
		b.Reports = slices.DeleteFunc(b.Reports, func(r registry.Report) bool {
			return r.Service == key.Service && r.Instance == key.Name && r.Checker == key.Sub
		})
	case registry.KindUnknown:
	}
	b.Notes = slices.DeleteFunc(b.Notes, func(n registry.Note) bool { return n.Key == key })
	b.Deleted = append(b.Deleted, key)
}

// ignore notes that a record is used without some fields, unless too many are.
func (t *tracker) ignore(raw string, revision int64, kind registry.Kind, fields string) bool {
	before, again := t.ignored[raw]
	switch {
	case before == fields:
		return true
	case !again && len(t.ignored) >= IgnoredMax:
		return false
	}
	delete(t.bad, raw)
	t.ignored[raw] = fields
	p := registry.NewIgnored(raw, revision, kind, fields)
	t.batch.Problems = append(t.batch.Problems, p)
	if _, known := t.known[raw]; !known && !again {
		t.fresh = append(t.fresh, p)
	}
	return true
}

// problem notes that a key cannot be used.
func (t *tracker) problem(raw string, revision int64, err error) {
	delete(t.ignored, raw)
	if _, again := t.bad[raw]; !again {
		if len(t.bad) >= ProblemsMax {
			if t.more++; t.more == 1 {
				t.batch.Problems = append(t.batch.Problems, registry.Problem{
					RawKey: t.format.Root(), Revision: revision,
					Reason: fmt.Sprintf("more than %d records cannot be used; the others are not listed", ProblemsMax),
					Mend:   "mend those that are listed, or delete what is no record",
				})
			}
			return
		}
		t.bad[raw] = struct{}{}
		if _, known := t.known[raw]; !known {
			t.fresh = append(t.fresh, registry.NewProblem(raw, revision, err))
		}
	}
	t.batch.Problems = append(t.batch.Problems, registry.NewProblem(raw, revision, err))
}

// mend notes that a key can be used whole, or is gone.
func (t *tracker) mend(raw string) {
	_, bad := t.bad[raw]
	_, ignored := t.ignored[raw]
	if bad || ignored {
		delete(t.bad, raw)
		delete(t.ignored, raw)
		t.batch.Mended = append(t.batch.Mended, raw)
	}
	if t.more > 0 && len(t.bad) == 0 {
		t.more = 0
		t.batch.Mended = append(t.batch.Mended, t.format.Root())
	}
}
