package etcd

import (
	"context"
	"encoding/json"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file is how candidates for a virtual address know of each other: those that
// have a priority keep a key below the address's, under a lease.

const (
	// deferral is how long a candidate waits for each that is preferred, when
	// the address is free: one that has died may be listed for as long as its
	// lease lives.
	deferral = 200 * time.Millisecond
	// deferralsMax bounds that.
	deferralsMax = 3
)

// announcement is the value of a candidate's key.
type announcement struct {
	Server   string `json:"server"`
	Priority uint8  `json:"priority"`
}

// contest is who holds an address and who wants to.
type contest struct {
	revision   int64
	holder     *mvccpb.KeyValue // nil: nobody does
	candidates []candidate
}

// candidate is one that has announced itself.
type candidate struct {
	created  int64 // the key's revision: another one is another's
	priority uint8
}

// look asks etcd for the contest for an address, whose key is raw.
func (c *Client) look(ctx context.Context, conn *clientv3.Client, raw string) (contest, error) {
	// Those of other addresses sort before raw, or after all that begins with
	// raw and a slash, which is what the next octet ends.
	resp, err := hedged(ctx, c.tries(), func(ctx context.Context) (*clientv3.GetResponse, error) {
		return conn.Get(ctx, raw, clientv3.WithRange(raw+string(rune('/'+1))))
	})
	if err != nil {
		return contest{}, err
	}
	found := contest{revision: resp.Header.Revision}
	for _, kv := range resp.Kvs {
		if string(kv.Key) == raw {
			found.holder = kv
			continue
		}
		var a announcement
		if json.Unmarshal(kv.Value, &a) == nil { // else it is nobody's
			found.candidates = append(found.candidates, candidate{kv.CreateRevision, a.Priority})
		}
	}
	return found, nil
}

// rank is how many candidates are preferred to one of a priority.
func (c contest) rank(priority uint8) int {
	n := 0
	for _, other := range c.candidates {
		if other.priority > priority {
			n++
		}
	}
	return n
}

// announce tells others that a candidate is there, until withdraw is called or
// this process has died. One without a priority has nothing to tell.
func (s *Source) announce(ctx context.Context, raw string, c Candidate) (withdraw func(), err error) {
	if c.Priority == 0 {
		return func() {}, nil
	}
	value, err := json.Marshal(announcement{c.Value, c.Priority})
	if err != nil {
		return nil, err
	}
	h, err := s.hold(ctx, raw+"/"+NewMemberName(c.Value), value, c.TTL)
	if err != nil {
		return nil, err
	}
	return func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		_ = h.Revoke(end) // else it expires
	}, nil
}

// seconds is a time to live as etcd takes it.
func seconds(ttl time.Duration) int64 { return int64((ttl + time.Second - 1) / time.Second) }
