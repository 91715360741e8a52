package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/registry"
)

// Source is the registry under one prefix. It is safe for concurrent use; one
// Watch runs at a time.
type Source struct {
	feed
	space registry.Keyspace
}

var (
	_ registry.Watcher = (*Source)(nil)
	_ registry.Writer  = (*Source)(nil)
	_ registry.Reader  = (*Source)(nil)
	_ registry.Holder  = (*Source)(nil)
)

// Keyspace says how the source's keys are written.
func (s *Source) Keyspace() registry.Keyspace { return s.space }

// raw returns the key in etcd of one of this source's records.
func (s *Source) raw(k registry.Key) (string, error) {
	if k.Source != s.id && k.Source != 0 {
		return "", fmt.Errorf("etcd: the record is of source %d, not of %d", k.Source, s.id)
	}
	return s.space.Raw(k)
}

// Get reads one record as it is now. ErrNotFound when there is none.
func (s *Source) Get(ctx context.Context, k registry.Key) (registry.Record, error) {
	raw, err := s.raw(k)
	if err != nil {
		return registry.Record{}, err
	}
	conn, err := s.client.dial()
	if err != nil {
		return registry.Record{}, err
	}
	resp, err := hedged(ctx, s.client.tries(), func(ctx context.Context) (*clientv3.GetResponse, error) { return conn.Get(ctx, raw) })
	if err != nil {
		return registry.Record{}, fmt.Errorf("reading %s: %w", raw, s.client.cause.explain(err))
	}
	if len(resp.Kvs) == 0 {
		return registry.Record{}, fmt.Errorf("reading %s: %w", raw, registry.ErrNotFound)
	}
	kv := resp.Kvs[0]
	return registry.Record{Value: kv.Value, Revision: kv.ModRevision, Leased: kv.Lease != 0}, nil
}

// Apply writes all ops in one transaction. The values are not looked at beyond
// their size: Encode functions of package registry make good ones. An error
// names the key; see registry.Op for the errors that conditions make.
func (s *Source) Apply(ctx context.Context, ops []registry.Op) (int64, error) {
	if len(ops) == 0 || len(ops) > registry.OpsMax {
		return 0, fmt.Errorf("etcd: %d writes in one transaction: want 1 to %d", len(ops), registry.OpsMax)
	}
	var (
		conditions []clientv3.Cmp
		reads      []clientv3.Op // of the keys with a condition, to say which failed
		writes     []clientv3.Op
		guarded    []registry.Op
	)
	for _, op := range ops {
		raw, err := s.raw(op.Key)
		if err != nil {
			return 0, err
		}
		if len(op.Value) > registry.ValueMax {
			return 0, fmt.Errorf("writing %s: the value has %d bytes: want at most %d", raw, len(op.Value), registry.ValueMax)
		}
		if condition, conditional := conditionOf(op, raw); conditional {
			conditions = append(conditions, condition)
			reads = append(reads, clientv3.OpGet(raw, clientv3.WithKeysOnly()))
			guarded = append(guarded, op)
		}
		write, err := writeOf(op, raw)
		if err != nil {
			return 0, err
		}
		writes = append(writes, write)
	}
	conn, err := s.client.dial()
	if err != nil {
		return 0, err
	}
	resp, err := conn.Txn(ctx).If(conditions...).Then(writes...).Else(reads...).Commit()
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound): // expired, and its keeper does not know yet
		return 0, fmt.Errorf("writing to etcd: %w", registry.ErrLost)
	case errors.Is(err, rpctypes.ErrKeyNotFound): // of KeepLease
		return 0, fmt.Errorf("writing to etcd: %w", registry.ErrNotFound)
	case err != nil:
		return 0, fmt.Errorf("writing to etcd: %w", s.client.cause.explain(err))
	case !resp.Succeeded:
		return 0, failedCondition(guarded, reads, resp)
	}
	return resp.Header.Revision, nil
}

// conditionOf is what must hold for an op; conditional is false when it is
// nothing.
func conditionOf(op registry.Op, raw string) (condition clientv3.Cmp, conditional bool) {
	switch {
	case op.Create:
		return clientv3.Compare(clientv3.CreateRevision(raw), "=", 0), true
	case op.IfRevision != 0:
		return clientv3.Compare(clientv3.ModRevision(raw), "=", op.IfRevision), true
	}
	return clientv3.Cmp{}, false
}

// writeOf is the write of an op.
func writeOf(op registry.Op, raw string) (clientv3.Op, error) {
	switch {
	case op.Value == nil:
		return clientv3.OpDelete(raw), nil
	case op.KeepLease:
		return clientv3.OpPut(raw, string(op.Value), clientv3.WithIgnoreLease()), nil
	case op.Lease != nil:
		h, ok := op.Lease.(*held)
		if !ok {
			return clientv3.Op{}, fmt.Errorf("writing %s: the lease is of another store", raw)
		}
		id := h.lease()
		if id == 0 {
			return clientv3.Op{}, fmt.Errorf("writing %s: %w", raw, registry.ErrLost)
		}
		return clientv3.OpPut(raw, string(op.Value), clientv3.WithLease(id)), nil
	}
	return clientv3.OpPut(raw, string(op.Value)), nil
}

// failedCondition says which condition of a transaction did not hold.
func failedCondition(guarded []registry.Op, reads []clientv3.Op, resp *clientv3.TxnResponse) error {
	for i, op := range guarded {
		kvs := resp.Responses[i].GetResponseRange().Kvs
		key := string(reads[i].KeyBytes())
		switch {
		case op.Create && len(kvs) > 0:
			return fmt.Errorf("creating %s: %w", key, registry.ErrExists)
		case !op.Create && len(kvs) == 0:
			return fmt.Errorf("writing %s: %w", key, registry.ErrNotFound)
		case !op.Create && kvs[0].ModRevision != op.IfRevision:
			return fmt.Errorf("writing %s: %w", key, registry.ErrChanged)
		}
	}
	return fmt.Errorf("writing to etcd: %w", registry.ErrChanged)
}
