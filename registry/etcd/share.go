package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/registry"
)

// shareTries bounds how often Share begins again since another server wrote in
// between.
const shareTries = 8

// Share reads a value that the servers of this registry share, has change say
// what it is to be, and returns what it is then. change gets nil when there is
// none, and returns nil to leave it; it is called again when another server has
// been faster, so that all end up with one value.
func (s *Source) Share(ctx context.Context, name string, change func(old []byte) ([]byte, error)) ([]byte, error) {
	raw := s.space.Secret(name)
	conn, err := s.client.dial()
	if err != nil {
		return nil, err
	}
	for range shareTries {
		got, err := conn.Get(ctx, raw)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", raw, err)
		}
		var old []byte
		revision := int64(0) // of a key that is not there
		if len(got.Kvs) > 0 {
			old, revision = got.Kvs[0].Value, got.Kvs[0].ModRevision
		}
		value, err := change(old)
		if err != nil || value == nil {
			return old, err
		}
		resp, err := conn.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(raw), "=", revision)).Then(clientv3.OpPut(raw, string(value))).Commit()
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", raw, err)
		}
		if resp.Succeeded {
			return value, nil
		}
	}
	return nil, fmt.Errorf("writing %s: %w", raw, registry.ErrChanged)
}
