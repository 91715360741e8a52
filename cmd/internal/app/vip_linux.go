package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/lb/kernel/vip"
	"github.com/musterdns/muster/registry/etcd"
)

// heldVIP is one virtual address.
type heldVIP struct {
	*vip.VIP

	cfg     config.VIP
	elector *elector
}

// buildVIPs makes the virtual addresses.
func (s *server) buildVIPs(cfg *config.Config) error {
	k := s.proxies.kernel
	for _, c := range cfg.Proxy.VIPs {
		e := &elector{
			server: s, inherited: s.opt.Sockets.TakeTerm(c.Address.Addr().String()),
			candidate: etcd.Candidate{Value: cfg.Node, TTL: cmp.Or(c.Lease, config.LeaseMin), Priority: c.Priority},
		}
		v, err := vip.New(vip.Config{
			Address: c.Address, Interface: c.Interface, Log: s.log.With("part", "proxy"), Elector: e,
			Hold: func(ctx context.Context, address netip.Addr, until time.Time) error {
				var errs []error
				for _, p := range k.planes {
					errs = append(errs, p.Hold(ctx, address, until))
				}
				return errors.Join(errs...)
			},
		})
		if err != nil {
			return fmt.Errorf("proxy.vips: %s: %w", c.Address, err)
		}
		k.vips = append(k.vips, &heldVIP{v, c, e})
	}
	return nil
}

// terms are those in which addresses are held, for a process to follow this one.
func (k *kernelProxies) terms() map[string]string {
	terms := map[string]string{}
	for _, v := range k.vips {
		if token := v.elector.token(); token != "" {
			terms[v.cfg.Address.Addr().String()] = token
		}
	}
	return terms
}

// handOver leaves the addresses to the process that has been given the terms. A
// term that has begun since is this process's to end.
func (k *kernelProxies) handOver(terms map[string]string) {
	for _, v := range k.vips {
		if token := v.elector.token(); token != "" && token == terms[v.cfg.Address.Addr().String()] {
			v.HandOver()
		}
	}
}

// elector has the servers of the registry agree who holds an address.
type elector struct {
	server    *server
	candidate etcd.Candidate
	// inherited is the term of the process before this one; empty: there was none,
	// or it has been looked at. Campaign's alone.
	inherited string

	mu   sync.Mutex
	term *etcd.Term // the last; it may have ended
}

// Campaign waits until this server may hold the address. While etcd is away it
// tries on, and says so once.
func (e *elector) Campaign(ctx context.Context, address netip.Addr) (vip.Lease, error) {
	for told := false; ; {
		term, err := e.elect(ctx, address)
		if err == nil {
			e.mu.Lock()
			e.term = term
			e.mu.Unlock()
			return term, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !told {
			e.server.log.Warn("nobody can be elected for a virtual address", "vip", address.String(), "error", err)
			told = true
		}
		pause(ctx, kernelRetry)
	}
}

// elect goes on with the term that this process was given, or campaigns.
func (e *elector) elect(ctx context.Context, address netip.Addr) (*etcd.Term, error) {
	if e.inherited != "" {
		term, err := e.server.cluster.Resume(ctx, address, e.inherited, e.candidate)
		if err != nil {
			return nil, err
		}
		e.inherited = ""
		if term != nil {
			return term, nil
		}
	}
	return e.server.cluster.Campaign(ctx, address, e.candidate)
}

// token is of the term that the address is held in; empty: it is not.
func (e *elector) token() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term == nil || !time.Now().Before(e.term.Deadline()) {
		return ""
	}
	return e.term.Token()
}
