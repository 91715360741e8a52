package fault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/integration/program"
)

// The times that instances are left to serve before they are killed: as long as what
// may be at any moment of its interval then, a check or an answer in a cache.
const (
	checksEach = 2 * time.Second
	cachesEach = 5 * time.Second // the TTL
)

// The intervals between two questions of a client: see pace, and long enough to leave
// the cores to what takes seconds.
const (
	paceMax   = 5 * time.Millisecond
	paceCache = 10 * time.Millisecond
)

// Crash measures how long a killed instance stays in the answers: from kill -9
// of the process that serves to the last wrong answer, of Muster and of others that
// are asked beside it about the same kill. Each of the lanes is a
// service of two instances, one of which is killed again and again at a moment
// that the checks know nothing of; the lanes go on at the same time. What the
// server tells of each is asked for beside it.
func Crash(ctx context.Context, l *Lab, d Death, lanes, runs int, witnesses ...Witness) (Crashes, error) {
	e, s, err := l.follow(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	addrs, err := (&scene{l, e, lanes}).start(ctx, witnesses)
	if err != nil {
		return nil, err
	}
	var running sync.WaitGroup
	crashes, errs := make([]Crashes, lanes), make([]error, lanes)
	for i := range lanes {
		running.Go(func() {
			stays, goes := laneHosts(i)
			n := &lane{lab: l, etcd: e, server: s, death: d, service: laneService(i), stays: stays, goes: goes, serve: checksEach}
			defer n.close()
			if errs[i] = n.dial(ctx, addrs, witnesses); errs[i] == nil {
				crashes[i], errs[i] = n.crashes(ctx, runs)
			}
		})
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.LogTail())
	}
	return slices.Concat(crashes...), nil
}

// laneService and laneHosts are the service of a lane and the hosts of its instances:
// the one that stays, and the one that is killed.
func laneService(lane int) string { return fmt.Sprintf("lane%d", lane) }

func laneHosts(lane int) (stays, goes byte) {
	return byte(hostBackends + 2*lane), byte(hostBackends + 2*lane + 1)
}

// lane is a service of two instances, one of which is killed.
type lane struct {
	lab         *Lab
	etcd        *Etcd
	server      *Server
	death       Death
	service     string
	stays, goes byte
	serve       time.Duration // at most, before a kill
	clients     []*Client     // of Muster and of the witnesses
}

func (n *lane) close() {
	for _, c := range n.clients {
		c.Close()
	}
}

// dial makes the clients.
func (n *lane) dial(ctx context.Context, addrs []string, witnesses []Witness) error {
	every := min(max(n.death.Limit/1000, pace), paceMax)
	for i, addr := range append([]string{n.server.DNS}, addrs...) {
		c, err := Dial(ctx, addr)
		if err != nil {
			return err
		}
		c.every = every
		if i > 0 && witnesses[i-1].Cache {
			c.every, n.serve = paceCache, cachesEach
		}
		n.clients = append(n.clients, c)
	}
	return nil
}

// crashes registers what is to be, and kills.
func (n *lane) crashes(ctx context.Context, runs int) (Crashes, error) {
	if _, err := n.etcd.Put(ctx, Keys+"services/"+n.service, `{"checks":`+n.death.Checks+`}`); err != nil {
		return nil, err
	}
	if _, err := n.lab.StartBackend(ctx, n.stays); err != nil {
		return nil, err
	}
	records := map[string]string{
		Instance(n.service, "stays"): n.lab.at(n.stays, portBackend),
		skyKey(n.service, "stays"):   n.skyRecord(n.stays),
	}
	if n.death.holder == nil {
		records[Instance(n.service, "goes")] = n.lab.at(n.goes, portBackend)
	}
	for key, value := range records {
		if _, err := n.etcd.Put(ctx, key, value); err != nil {
			return nil, err
		}
	}
	var all Crashes
	for range runs {
		one, err := n.run(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// skyRecord is an instance as CoreDNS reads it, with the TTL that Muster sends.
func (n *lane) skyRecord(host byte) string {
	return fmt.Sprintf(`{"host":%q,"port":%d,"ttl":5}`, n.lab.Addr(host), portBackend)
}

// run is one kill.
func (n *lane) run(ctx context.Context) (Crashed, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*startTimeout)
	defer cancel()
	p, err := n.begin(ctx)
	if err != nil {
		return Crashed{}, err
	}
	var one Crashed
	if err := n.all(func(i int) error { return n.await(ctx, i, &one) }); err != nil {
		return Crashed{}, err
	}
	var lost <-chan time.Time
	if n.death.Registered() {
		lost = n.loss(ctx)
	}
	dead := moment{killed: make(chan struct{})}
	lasts := make([]time.Duration, len(n.clients))
	var killing sync.WaitGroup
	killing.Go(func() {
		defer close(dead.killed)
		if dead.at, dead.err = n.kill(ctx, p); dead.err != nil {
			cancel()
		}
	})
	err = n.all(func(i int) error {
		var err error
		lasts[i], err = n.last(ctx, i, &dead, &one)
		return err
	})
	killing.Wait()
	if err := cmp.Or(dead.err, err); err != nil {
		return Crashed{}, err
	}
	one.Saw, one.Others = lasts[0], lasts[1:]
	if lost != nil {
		at, ok := <-lost
		if !ok {
			return Crashed{}, errors.New("etcd does not tell that the registration is gone")
		}
		one.Lost = at.Sub(dead.at)
	}
	one.Told, err = n.death.told(ctx, n.server, n.service, dead.at)
	return one, err
}

// moment is when the kill of a run was.
type moment struct {
	killed chan struct{} // closed when at and err are set
	at     time.Time
	err    error
}

// kill kills at any moment of the interval between two checks, or of a TTL.
func (n *lane) kill(ctx context.Context, p *program.Process) (time.Time, error) {
	select {
	case <-time.After(rand.N(n.serve)):
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	at := time.Now()
	return at, n.death.kill(p)
}

// begin starts the instance that is to be killed, or what holds it.
func (n *lane) begin(ctx context.Context) (*program.Process, error) {
	if n.death.holder == nil {
		return n.lab.StartBackend(ctx, n.goes)
	}
	p, err := n.lab.Start("register", n.death.holder(n.lab, n.service, n.goes)...)
	if err != nil || !n.death.orphan {
		return p, err
	}
	// CoreDNS's record is put under the lease that Muster's is under.
	return p, p.Poll(ctx, func() error {
		got, err := n.etcd.Get(ctx, Instance(n.service, "goes"))
		if err != nil {
			return err
		}
		if len(got.Kvs) == 0 {
			return errors.New("it has not registered")
		}
		_, err = n.etcd.Put(ctx, skyKey(n.service, "goes"), n.skyRecord(n.goes), clientv3.WithLease(clientv3.LeaseID(got.Kvs[0].Lease)))
		return err
	})
}

// all calls f for every client at the same time.
func (n *lane) all(f func(client int) error) error {
	var asking sync.WaitGroup
	errs := make([]error, len(n.clients))
	for i := range n.clients {
		asking.Go(func() { errs[i] = f(i) })
	}
	asking.Wait()
	return errors.Join(errs...)
}

// await waits until a client is answered both instances. The first notes Muster's TTL.
func (n *lane) await(ctx context.Context, client int, one *Crashed) error {
	both := Has(n.lab.Addr(n.stays).String(), n.lab.Addr(n.goes).String())
	m, err := n.clients[client].Await(ctx, n.service+"."+Zone, dns.TypeA, both)
	if err == nil && client == 0 {
		one.TTL = ttlOf(m)
	}
	return err
}

// last waits until a client is answered the instance that stays alone, and returns how
// long after the kill it was answered otherwise the last time. Of servers it asks from
// the kill on; of a cache before too, so that there is an answer in it at any moment.
func (n *lane) last(ctx context.Context, client int, dead *moment, one *Crashed) (time.Duration, error) {
	if n.clients[client].every != paceCache {
		<-dead.killed
	}
	right := Has(n.lab.Addr(n.stays).String())
	var last time.Time
	_, err := n.clients[client].Await(ctx, n.service+"."+Zone, dns.TypeA, func(m *dns.Msg) error {
		err := right(m)
		if err != nil {
			last = time.Now()
			if client == 0 {
				one.TTL = max(one.TTL, ttlOf(m))
			}
		}
		return err
	})
	now := time.Now()
	<-dead.killed
	switch {
	case err != nil && strings.Contains(err.Error(), n.lab.Addr(n.goes).String()):
		err = fmt.Errorf("the killed instance stays: %w", err)
	case err == nil && now.Before(dead.at):
		err = errors.New("the instance went from the answers before it was killed")
	}
	return max(last.Sub(dead.at), 0), err
}

// ttlOf is the TTL of an answer; 0 if it has no record.
func ttlOf(m *dns.Msg) time.Duration {
	if len(m.Answer) == 0 {
		return 0
	}
	return time.Duration(m.Answer[0].Header().Ttl) * time.Second
}

// loss tells when etcd says that the instance's record is gone; the channel is closed
// without a word when ctx ends before.
func (n *lane) loss(ctx context.Context) <-chan time.Time {
	ctx, cancel := context.WithCancel(ctx)
	events := n.etcd.Watch(ctx, Instance(n.service, "goes"), clientv3.WithFilterPut())
	lost := make(chan time.Time, 1)
	go func() {
		defer close(lost)
		defer cancel()
		if r, ok := <-events; ok && r.Err() == nil {
			lost <- time.Now()
		}
	}()
	return lost
}
