package etcd

import (
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/musterdns/muster/registry"
)

// feed is what follows the keys under one root, of whatever format.
type feed struct {
	client *Client
	id     registry.SourceID
	format format

	watching atomic.Bool
	counters counters
}

// format says which keys are records and how they are read.
type format interface {
	// Root is what every key begins with, a slash at its end.
	Root() string
	// Parse is as Keyspace.Parse.
	Parse(raw string) (key registry.Key, ok bool, err error)
	// canonical is the one spelling, of those that name the same key, which has
	// the record before all others.
	canonical(key registry.Key, raw string) string
	// record decodes a value into the batch, and returns the fields that are not known and
	// that somebody is to be told of.
	record(b *registry.Batch, key registry.Key, kv *mvccpb.KeyValue) (ignored string, err error)
}

// Format is how others than Muster write instances, each under a key of its own.
type Format interface {
	// Root is what every key begins with, a slash at its end.
	Root() string
	// Parse returns the instance that a key names; no two keys name one. Not ok:
	// the key is of no matter. An error says why it can be no instance.
	Parse(raw string) (key registry.Key, ok bool, err error)
	// Instance decodes the value of such a key.
	Instance(raw string, value []byte) (registry.Instance, error)
}

// Foreign follows what others write. It is safe for concurrent use;
// one Watch runs at a time.
type Foreign struct{ feed }

var _ registry.Watcher = (*Foreign)(nil)

// Foreign returns the source of the instances in a format of others'. Records
// that it delivers carry id.
func (c *Client) Foreign(id registry.SourceID, f Format) *Foreign {
	return &Foreign{feed{client: c, id: id, format: foreign{f}}}
}

// foreign is a Format as a feed takes it.
type foreign struct{ Format }

func (foreign) canonical(_ registry.Key, raw string) string { return raw }

func (f foreign) record(b *registry.Batch, _ registry.Key, kv *mvccpb.KeyValue) (string, error) {
	in, err := f.Instance(string(kv.Key), kv.Value)
	if err == nil {
		b.Instances = append(b.Instances, stamped(in, kv))
	}
	return "", err
}

// NoteFormat is how others than Muster write what is more than instances.
type NoteFormat interface {
	// Root and Parse are as those of Format.
	Root() string
	Parse(raw string) (key registry.Key, ok bool, err error)
	// Note decodes the value of a key that Parse takes.
	Note(raw string, value []byte) (any, error)
}

// Notes follows the records of such a format. It is safe for concurrent use; one Watch
// runs at a time.
func (c *Client) Notes(id registry.SourceID, f NoteFormat) *Foreign {
	return &Foreign{feed{client: c, id: id, format: notes{f}}}
}

// notes is a NoteFormat as a feed takes it.
type notes struct{ NoteFormat }

func (notes) canonical(_ registry.Key, raw string) string { return raw }

func (n notes) record(b *registry.Batch, key registry.Key, kv *mvccpb.KeyValue) (string, error) {
	value, err := n.Note(string(kv.Key), kv.Value)
	if err == nil {
		b.Notes = append(b.Notes, registry.Note{
			Key: key, Value: value, Incarnation: kv.CreateRevision, Revision: kv.ModRevision, Leased: kv.Lease != 0,
		})
	}
	return "", err
}

// Stats are a source's counters and where it stands, as values.
type Stats struct {
	Revision  int64     // up to which every change has been delivered
	AsOf      time.Time // when that was last proven to be all there is; zero: never
	Keys      int64     // under the prefix, good, bad and others'
	Problems  int64     // records that cannot be used now; ProblemsMax at most
	Ignored   int64     // records in use with fields that are not known; IgnoredMax at most
	Lists     uint64    // times the complete state was read
	Resumes   uint64    // times the watch was begun again where it had ended
	Rollbacks uint64    // times the store's revision or identity went back
	Events    uint64    // changes received
}

// counters are the atomics behind Stats; the goroutine of Watch writes them.
type counters struct {
	revision, asOf, keys, problems, ignored atomic.Int64
	lists, resumes, rollbacks, events       atomic.Uint64
}

// ID is the identity that the source's records carry.
func (f *feed) ID() registry.SourceID { return f.id }

// Stats returns the counters. It may be called at any time.
func (f *feed) Stats() Stats {
	c := &f.counters
	stats := Stats{
		Revision: c.revision.Load(), Keys: c.keys.Load(), Problems: c.problems.Load(), Ignored: c.ignored.Load(),
		Lists: c.lists.Load(), Resumes: c.resumes.Load(), Rollbacks: c.rollbacks.Load(), Events: c.events.Load(),
	}
	if at := c.asOf.Load(); at != 0 {
		stats.AsOf = time.Unix(0, at)
	}
	return stats
}
