package etcd

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/registry"
)

// etcd's deletion events do not say why a key went. But a lease that has ended
// is gone by the time that its keys' deletion is seen, while the lease of a key
// that somebody deleted lives on: Lease.Close deletes and does not revoke. So
// the lease that a deleted instance was under is asked for: if it lives, the
// instance was deleted, else it was lost. Whoever revokes a lease by hand makes
// what is under it lost.

// leftover is a deleted instance that was under a lease.
type leftover struct {
	key   registry.Key
	lease clientv3.LeaseID
}

const (
	// lookupTimeout bounds what the question can hold up a batch. What is not
	// answered by then is taken for lost.
	lookupTimeout = time.Second
	// lookupsMax is how many leases are asked for at a time.
	lookupsMax = 16
)

// leave notes a deleted key. A note may be an instance: who reads it knows.
func (t *tracker) leave(key registry.Key, lease clientv3.LeaseID) {
	_, noted := t.format.(notes)
	if (key.Kind == registry.KindInstance || noted) && lease != 0 {
		t.left = append(t.left, leftover{key, lease})
	}
}

// findLost fills in Lost of the batch being gathered.
func (f *follower) findLost(ctx context.Context) {
	left := f.track.left
	if len(left) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	alive := make(map[clientv3.LeaseID]bool, len(left))
	for _, l := range left {
		alive[l.lease] = false
	}
	ask := make(chan clientv3.LeaseID, len(alive))
	for id := range alive {
		ask <- id
	}
	close(ask)
	var mu sync.Mutex
	var lookups sync.WaitGroup
	for range min(lookupsMax, len(alive)) {
		lookups.Go(func() {
			for id := range ask {
				resp, err := f.client.timeToLive(ctx, f.conn, id)
				if err == nil && resp.TTL > 0 {
					mu.Lock()
					alive[id] = true
					mu.Unlock()
				}
			}
		})
	}
	lookups.Wait()
	for _, l := range left {
		if !alive[l.lease] {
			f.track.batch.Lost = append(f.track.batch.Lost, l.key)
		}
	}
}
