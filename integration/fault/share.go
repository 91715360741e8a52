package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// hostPeers is the first of the hosts that servers which share the checking
// listen at; instances begin above them.
const hostPeers = 3

// FleetService is the service of a fleet's instances.
const FleetService = "fleet"

// MemberLease is how long a server that died is believed to live (memberTTL of
// the program).
const MemberLease = 10 * time.Second

// Peers are servers of one registry, and a fleet of instances that they check.
type Peers struct {
	Etcd    *Etcd
	Fleet   *Fleet
	Servers []*Server
	// Relays are the ways of the servers to etcd, of replicas.
	Relays []*Relay

	lab       *Lab
	instances int
}

// StartPeers starts etcd, a fleet of instances, and servers that check each of
// them once an interval, and waits until each server has found all of them passing:
// until then it answers those that it knows nothing of. The caller must Close it.
func (l *Lab) StartPeers(ctx context.Context, servers, instances int, interval time.Duration) (*Peers, error) {
	return l.startPeers(ctx, servers, instances, interval, false)
}

// StartReplicas is StartPeers, where each server has a way of its own to etcd, that may be
// cut.
func (l *Lab) StartReplicas(ctx context.Context, servers, instances int, interval time.Duration) (*Peers, error) {
	return l.startPeers(ctx, servers, instances, interval, true)
}

func (l *Lab) startPeers(ctx context.Context, servers, instances int, interval time.Duration, relayed bool) (*Peers, error) {
	p := &Peers{lab: l, instances: instances}
	var err error
	if p.Etcd, err = l.Etcd(ctx); err != nil {
		return nil, err
	}
	if p.Fleet, err = l.StartFleet(ctx, instances); err != nil {
		p.Close()
		return nil, err
	}
	if err := p.Etcd.Load(ctx, p.Fleet.Records(FleetService, 0, instances)); err != nil {
		p.Close()
		return nil, err
	}
	for i := range servers {
		if err := p.serve(ctx, i, interval, relayed); err != nil {
			p.Close()
			return nil, err
		}
	}
	for i, s := range p.Servers {
		err := s.Ready(ctx)
		if err == nil {
			err = p.AwaitPassing(ctx, i)
		}
		if err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// Close ends the fleet and the client of etcd; the lab ends the programs.
func (p *Peers) Close() {
	if p.Fleet != nil {
		p.Fleet.Close()
	}
	for _, r := range p.Relays {
		r.Close()
	}
	p.Etcd.Close()
}

// Host is what the i-th server sends as the Host of its checks.
func (p *Peers) Host(i int) string { return fmt.Sprintf("peer-%d", i) }

// peersFall is how many failures in a row are believed: what a loaded machine holds up
// for a second or two is no failure of an instance.
const peersFall = 8

// serve starts the i-th server.
func (p *Peers) serve(ctx context.Context, i int, interval time.Duration, relayed bool) error {
	l, etcd := p.lab, p.Etcd.URL
	if relayed {
		const delay, rate = 0, 1 << 30
		r, err := NewRelay(ctx, l.at(hostEtcd, portEtcd), delay, rate)
		if err != nil {
			return err
		}
		p.Relays = append(p.Relays, r)
		etcd = "http://" + r.Addr
	}
	dns, admin := l.at(byte(hostPeers+i), portDNS), l.at(byte(hostPeers+i), portAdmin)
	config := l.Path(p.Host(i) + ".yaml")
	text := fmt.Sprintf("node: %s\nlog: {format: json}\ndns: {listen: [%q], workers: 1}\nadmin: {listen: %q}\n", p.Host(i), dns, admin) +
		fmt.Sprintf("health: {allow_targets: [127.0.0.0/8], defaults: {interval: %s, fall: %d}}\n", interval, peersFall) +
		fmt.Sprintf("services: [{name: %s, fail: closed, checks: [{type: http, path: /, host: %s}]}]\n", FleetService, p.Host(i)) +
		fmt.Sprintf("registry: {mode: etcd, etcd: {endpoints: [%q]}, snapshot: \"off\"}\n", etcd)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	s := &Server{DNS: dns, Admin: "http://" + admin, logFile: l.Path(p.Host(i) + ".log"), started: time.Now()}
	var err error
	s.Process, err = l.Start(p.Host(i), "sh", "-c", `exec "$@" 2>>"$0"`, s.logFile, l.Binary, "serve", "--config", config)
	p.Servers = append(p.Servers, s)
	return err
}

// status is what a server says of itself.
type status struct {
	Instances struct {
		Serving int `json:"serving"`
		Passing int `json:"passing"`
	} `json:"instances"`
	Members []struct{} `json:"members"`
}

func (p *Peers) status(ctx context.Context, i int) (status, error) { return p.Servers[i].status(ctx) }

func (s *Server) status(ctx context.Context) (status, error) {
	var st status
	text, err := s.get(ctx, "/v1/status")
	if err != nil {
		return st, err
	}
	err = json.Unmarshal(text, &st)
	return st, err
}

// Serving is how many instances the i-th server answers.
func (p *Peers) Serving(ctx context.Context, i int) (int, error) {
	st, err := p.status(ctx, i)
	return st.Instances.Serving, err
}

// AwaitMembers waits until the i-th server knows n living ones.
func (p *Peers) AwaitMembers(ctx context.Context, i, n int) error {
	return p.await(ctx, i, func() error {
		st, err := p.status(ctx, i)
		if err == nil && len(st.Members) != n {
			err = fmt.Errorf("server %d knows %d members, want %d", i, len(st.Members), n)
		}
		return err
	})
}

// AwaitPassing waits until the i-th server has found all instances passing.
func (p *Peers) AwaitPassing(ctx context.Context, i int) error {
	return p.await(ctx, i, func() error {
		st, err := p.status(ctx, i)
		if err == nil && st.Instances.Passing != p.instances {
			err = fmt.Errorf("server %d: %d instances pass, want %d", i, st.Instances.Passing, p.instances)
		}
		return err
	})
}

// AwaitServing waits until the i-th server answers n instances.
func (p *Peers) AwaitServing(ctx context.Context, i, n int) error {
	return p.await(ctx, i, func() error {
		got, err := p.Serving(ctx, i)
		if err == nil && got != n {
			err = fmt.Errorf("server %d answers %d instances, want %d", i, got, n)
		}
		return err
	})
}

// AwaitMetric waits until a metric of the i-th server has a value.
func (p *Peers) AwaitMetric(ctx context.Context, i int, series string, want float64) error {
	return p.await(ctx, i, func() error {
		got, err := p.Servers[i].Metric(ctx, series)
		if err == nil && got != want {
			err = fmt.Errorf("server %d: %s is %v, want %v", i, series, got, want)
		}
		return err
	})
}

func (p *Peers) await(ctx context.Context, i int, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*startTimeout)
	defer cancel()
	if err := p.Servers[i].Poll(ctx, ready); err != nil {
		return fmt.Errorf("%w\n%s", err, p.Servers[i].LogTail())
	}
	return nil
}

// AwaitTargets waits until the i-th server checks n instances itself.
func (p *Peers) AwaitTargets(ctx context.Context, i int, low, high float64) error {
	return p.await(ctx, i, func() error {
		n := 0.0
		for _, state := range []string{"unknown", "passing", "failing"} {
			v, err := p.Servers[i].Metric(ctx, fmt.Sprintf("muster_health_targets{state=%q}", state))
			if err != nil {
				return err
			}
			n += v
		}
		if n < low || n > high {
			return fmt.Errorf("server %d checks %v instances, want %v to %v", i, n, low, high)
		}
		return nil
	})
}

// Changes is how often the i-th server has found the health of an instance
// changed.
func (p *Peers) Changes(ctx context.Context, i int) (float64, error) {
	return p.Servers[i].Metric(ctx, "muster_pool_health_changes_total")
}

// Rates is how many checks each server sends a second, measured for a while.
func (p *Peers) Rates(ctx context.Context, window time.Duration) ([]float64, error) {
	before := make([]int64, len(p.Servers))
	for i := range p.Servers {
		before[i] = p.Fleet.Checks(p.Host(i))
	}
	began := time.Now()
	select {
	case <-time.After(window):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	took := time.Since(began).Seconds()
	rates := make([]float64, len(p.Servers))
	for i := range p.Servers {
		rates[i] = float64(p.Fleet.Checks(p.Host(i))-before[i]) / took
	}
	return rates, nil
}

// leasesOfFleet is how many leases the leased part of a fleet is under: as on
// that many machines.
const leasesOfFleet = 20

// Lease puts the instances from up to to under leases, and returns what revokes
// these all at once.
func (p *Peers) Lease(ctx context.Context, from, to int) (revoke func() error, err error) {
	var leases []clientv3.LeaseID
	for range leasesOfFleet {
		lease, err := p.Etcd.Grant(ctx, 600)
		if err != nil {
			return nil, err
		}
		leases = append(leases, lease.ID)
	}
	i := 0
	for key, value := range p.Fleet.Records(FleetService, from, to) {
		if _, err := p.Etcd.Put(ctx, key, value, clientv3.WithLease(leases[i%len(leases)])); err != nil {
			return nil, err
		}
		i++
	}
	return func() error {
		for _, id := range leases {
			if _, err := p.Etcd.Revoke(ctx, id); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
