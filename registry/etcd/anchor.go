package etcd

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// anchor is the last change that was delivered, by which its store is known again. A
// store that was restored to before it has made something else at that revision, or
// nothing yet; and what a restored store tells of itself does not have to differ: the
// cluster's identity comes from its token and its members' addresses, its term from how
// often it was started, and its revision is beyond the old one as soon as enough was
// written.
//
// The store is asked at each proof, and before anything is delivered that may have come
// over another connection than was there when it was asked.
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
// revision up to which it is unchanged, since those before may be compacted; a deletion
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
	return []clientv3.Op{clientv3.OpGet(a.key, clientv3.WithRev(unchanged))}
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

// recognize returns what asks the store whether it is still the one: errRollback when it
// is not, errCompact when there is no telling. It may be called by another goroutine.
func (f *follower) recognize() func(context.Context) (*etcdserverpb.ResponseHeader, error) {
	last, seed, conn := f.last, f.seed, f.conn
	reads := last.reads(f.revision, f.format.Root())
	tries := f.client.tries()
	return func(ctx context.Context) (*etcdserverpb.ResponseHeader, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		resp, err := hedged(ctx, tries, func(ctx context.Context) (*clientv3.TxnResponse, error) {
			return conn.Txn(ctx).Then(reads...).Commit()
		})
		switch {
		case errors.Is(err, rpctypes.ErrFutureRev):
			return nil, errRollback
		case errors.Is(err, rpctypes.ErrCompacted):
			return nil, errCompact
		case err != nil:
			return nil, fmt.Errorf("reading %q again: %w", last.key, err)
		case !last.in(resp, seed):
			return nil, errRollback
		}
		return resp.Header, nil
	}
}

// sameStore asks the store whether it is still the one, if there are connections that
// were not there when it was last asked.
func (f *follower) sameStore(ctx context.Context) error {
	begun := f.client.conns.begun.Load()
	if begun == f.conns {
		return nil
	}
	h, err := f.recognize()(ctx)
	if err != nil {
		return err
	}
	if f.wentBack(h, f.revision) {
		return errRollback
	}
	f.conns = begun
	return nil
}
