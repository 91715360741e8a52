package etcd

import (
	"hash/maphash"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// anchor is a change that was seen, by which its store is known again. A store that
// was restored to before it has made something else at that revision, or nothing yet;
// and what a restored store tells of itself does not have to differ: the cluster's
// identity comes from its token and its members' addresses, its term from how often it
// was started, and its revision is beyond the old one as soon as enough was written.
type anchor struct {
	key      string // empty: nothing was seen, and every store is the one
	revision int64
	deleted  bool
	put      [4]uint64 // what was put: created, version, lease, a hash of the value
}

// newAnchor is the anchor of a change to a key.
func newAnchor(kv *mvccpb.KeyValue, deleted bool, seed maphash.Seed) anchor {
	a := anchor{key: string(kv.Key), revision: kv.ModRevision, deleted: deleted}
	if !deleted {
		a.put = written(kv, seed)
	}
	return a
}

// written is what a key has beside its revision.
func written(kv *mvccpb.KeyValue, seed maphash.Seed) [4]uint64 {
	return [4]uint64{uint64(kv.CreateRevision), uint64(kv.Version), uint64(kv.Lease), maphash.Bytes(seed, kv.Value)}
}

// reads are what shows whether a store has the change. What was put is read at a
// revision up to which it is unchanged, since those before it are compacted; a deletion
// has left nothing, and is told by what was there just before.
func (a anchor) reads(unchanged int64, root string) []clientv3.Op {
	switch {
	case a.key == "":
		return []clientv3.Op{clientv3.OpGet(root)}
	case a.deleted:
		return []clientv3.Op{
			clientv3.OpGet(a.key, clientv3.WithRev(a.revision), clientv3.WithKeysOnly()),
			clientv3.OpGet(a.key, clientv3.WithRev(a.revision-1), clientv3.WithKeysOnly()),
		}
	}
	return []clientv3.Op{clientv3.OpGet(a.key, clientv3.WithRev(max(a.revision, unchanged)))}
}

// in reports whether the answer to reads is that of the store with the change.
func (a anchor) in(resp *clientv3.TxnResponse, seed maphash.Seed) bool {
	if a.key == "" {
		return true
	}
	var found []*mvccpb.KeyValue // nil where there was no key
	for _, r := range resp.Responses {
		var kv *mvccpb.KeyValue
		if kvs := r.GetResponseRange().GetKvs(); len(kvs) > 0 {
			kv = kvs[0]
		}
		found = append(found, kv)
	}
	if a.deleted {
		return len(found) == 2 && found[0] == nil && found[1] != nil
	}
	return len(found) == 1 && found[0] != nil && found[0].ModRevision == a.revision && written(found[0], seed) == a.put
}
