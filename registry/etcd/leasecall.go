package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// This file is what is asked of etcd about leases, each of whichever member answers
// first (see hedged): the client's own calls stay with one until its connection ends.

// grant makes a lease of a time to live that etcd may make longer, and returns at least
// what it is. That has an identity from here, so that it is made once however often it
// is asked for.
func (c *Client) grant(ctx context.Context, conn *clientv3.Client, ttl time.Duration) (clientv3.LeaseID, time.Duration, error) {
	stub := clientv3.RetryLeaseClient(conn) // tries again for 2.5 s while no member can be reached
	ask := &etcdserverpb.LeaseGrantRequest{ID: 1 + rand.Int64N(1<<62), TTL: seconds(ttl)}
	granted, err := hedged(ctx, c.tries(), func(ctx context.Context) (int64, error) {
		resp, err := stub.LeaseGrant(ctx, ask)
		for status.Code(err) == codes.Unavailable && ctx.Err() == nil {
			resp, err = stub.LeaseGrant(ctx, ask)
		}
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist):
			return ask.TTL, nil
		case err != nil:
			return 0, err
		}
		return resp.TTL, nil
	})
	return clientv3.LeaseID(ask.ID), time.Duration(granted) * time.Second, err
}

// renew gives a lease its whole time again, and returns that.
func (c *Client) renew(ctx context.Context, conn *clientv3.Client, id clientv3.LeaseID) (time.Duration, error) {
	stub := etcdserverpb.NewLeaseClient(conn.ActiveConnection())
	return hedged(ctx, c.tries(), func(ctx context.Context) (time.Duration, error) { return renewOnce(ctx, stub, id) })
}

// renewOnce asks one member. The client's own KeepAliveOnce tries again without a pause
// while no member can be reached.
func renewOnce(ctx context.Context, stub etcdserverpb.LeaseClient, id clientv3.LeaseID) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := stub.LeaseKeepAlive(ctx)
	if err != nil {
		return 0, err
	}
	if err := stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return 0, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return 0, err
	}
	if resp.TTL <= 0 {
		return 0, rpctypes.ErrLeaseNotFound
	}
	return time.Duration(resp.TTL) * time.Second, nil
}

// revoke ends a lease, which may have ended.
func (c *Client) revoke(ctx context.Context, conn *clientv3.Client, id clientv3.LeaseID) error {
	_, err := hedged(ctx, c.tries(), func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
		return conn.Revoke(ctx, id)
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}

// timeToLive asks what is left of a lease.
func (c *Client) timeToLive(ctx context.Context, conn *clientv3.Client, id clientv3.LeaseID) (*clientv3.LeaseTimeToLiveResponse, error) {
	return hedged(ctx, c.tries(), func(ctx context.Context) (*clientv3.LeaseTimeToLiveResponse, error) {
		return conn.TimeToLive(ctx, id)
	})
}
