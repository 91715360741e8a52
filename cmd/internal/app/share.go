package app

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// peers follows who of the servers of this registry lives, for the pool to
// share the checking with.
type peers struct {
	server *server
	self   string // this server's name among them, once it is one

	mu      sync.Mutex
	members map[string]registry.Member
	next    map[string]registry.Member // of a complete state that is still coming; nil: none is
}

// take takes what a batch of the cluster's source says of members.
func (p *peers) take(ctx context.Context, b *registry.Batch) error {
	if !p.note(b) {
		return nil
	}
	return p.tell(ctx)
}

// note reports whether the members may have changed.
func (p *peers) note(b *registry.Batch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.Reset {
		p.next = map[string]registry.Member{}
	}
	into := p.members
	if p.next != nil {
		into = p.next
	}
	changed := len(b.Members) > 0
	for _, m := range b.Members {
		into[m.Name] = m
	}
	for _, k := range b.Deleted {
		if k.Kind == registry.KindMember {
			delete(into, k.Name)
			changed = true
		}
	}
	if p.next != nil && !b.More {
		p.members, p.next, changed = p.next, nil, true
	}
	return changed && p.next == nil
}

// tell tells the pool who is there.
func (p *peers) tell(ctx context.Context) error {
	p.mu.Lock()
	list := slices.Collect(maps.Values(p.members))
	p.mu.Unlock()
	if !p.server.cfg.Load().Health.Share {
		return nil
	}
	return p.server.pool.SetPeers(ctx, p.self, list)
}

// sink is the pool's sink, with the members of the cluster's source told first:
// by them it judges what else the batch says.
func (s *server) sink(ctx context.Context, src registry.SourceID) func(registry.Batch) error {
	sink := s.pool.Sink(ctx)
	if src != s.cluster.ID() {
		return sink
	}
	return func(b registry.Batch) error {
		if err := s.peers.take(ctx, &b); err != nil {
			return err
		}
		return sink(b)
	}
}

// watchCluster follows the members where no service zone has their prefix.
func (s *server) watchCluster(ctx context.Context) error {
	err := s.cluster.Watch(ctx, func(b registry.Batch) error { return s.peers.take(ctx, &b) })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

const (
	// reportPace is the least time between two transactions of reports: twenty
	// of them a second are 2,560 verdicts, and leave etcd to registrants.
	reportPace = 50 * time.Millisecond
	// reportRetry is how long is waited after one that failed, and reportTimeout
	// how long one may take.
	reportRetry   = time.Second
	reportTimeout = 3 * time.Second
)

// report tells the other servers what this one's checks find, until ctx ends:
// under the lease of its member record, so that it goes when this server does.
func (s *server) report(ctx context.Context, lease registry.Lease, m registry.Member) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-lease.Lost(): // and with it all that was told
			if err := s.pool.SayAgain(ctx); err != nil {
				return ended(ctx, err)
			}
		case <-s.pool.SaidReady():
			for {
				err := s.writeReports(ctx, lease, &m)
				if err == nil || ctx.Err() != nil {
					break
				}
				s.reportsFailed.Add(1)
				s.log.Debug("telling what checks found failed; trying again", "error", err)
				pause(ctx, reportRetry)
			}
		}
		pause(ctx, reportPace)
	}
}

// writeReports writes one transaction of reports to each zone. What is not
// written stays to be told.
func (s *server) writeReports(ctx context.Context, lease registry.Lease, m *registry.Member) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if suspect := s.pool.Suspect(); suspect != m.Suspect {
		next := *m
		next.Suspect = suspect
		value, err := registry.EncodeMember(next)
		if err != nil {
			return err
		}
		if err := lease.Update(ctx, value); err != nil {
			return err
		}
		*m = next
	}
	var failed []error
	byZone := map[registry.SourceID][]pool.Said{}
	for _, said := range s.pool.TakeSaid(registry.OpsMax) {
		byZone[said.Source] = append(byZone[said.Source], said)
	}
	for id, list := range byZone {
		if err := s.writeReportsOf(ctx, lease, id, list); err != nil {
			s.pool.ReturnSaid(list)
			failed = append(failed, err)
			continue
		}
		s.reportsWritten.Add(uint64(len(list)))
	}
	return errors.Join(failed...)
}

func (s *server) writeReportsOf(ctx context.Context, lease registry.Lease, id registry.SourceID, list []pool.Said) error {
	ops := make([]registry.Op, 0, len(list))
	for i := range list {
		r := &list[i].Report
		op := registry.Op{Key: registry.Key{Kind: registry.KindHealth, Service: r.Service, Name: r.Instance, Sub: r.Checker}}
		if !list[i].Withdrawn {
			value, err := registry.EncodeReport(*r)
			if err != nil {
				return err
			}
			op.Value, op.Lease = value, lease
		}
		ops = append(ops, op)
	}
	for i := range s.sources {
		if s.sources[i].etcd.ID() == id {
			_, err := s.sources[i].etcd.Apply(ctx, ops)
			return err
		}
	}
	return nil // the zone was taken out of the configuration
}
