package app

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/cmd/internal/handover"
	"github.com/musterdns/muster/lb/l7"
)

// listenerSet is the listeners of modes tcp, udp and http, and the ways in which
// their instances are spoken to over TLS. It is immutable once it is in force;
// a reload makes another, in which what has not changed is the same.
type listenerSet struct {
	streams []*stream // of modes tcp and udp
	http    []*httpProxy
	tls     []*instanceWay
}

// instanceWay is one way of speaking to instances over TLS.
type instanceWay struct {
	*unit

	cfg config.InstanceTLS
	tls *l7.InstanceTLS
}

// unit is a part of a listenerSet that runs from when it comes into force until
// it is retired.
type unit struct {
	run     func(context.Context) error
	discard func()          // gives up what is not going to run
	want    config.Listener // what it was made for
	retired chan struct{}   // closed when it is
}

func newUnit(run func(context.Context) error, discard func()) *unit {
	return &unit{run: run, discard: discard, retired: make(chan struct{})}
}

// live runs until ctx ends or the unit is retired, and what is in flight has
// ended.
func (u *unit) live(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group errgroup.Group
	group.Go(func() error {
		defer cancel()
		return u.run(ctx)
	})
	select {
	case <-u.retired:
		cancel()
	case <-ctx.Done():
	}
	return group.Wait()
}

// units lists the parts of the set.
func (set *listenerSet) units() []*unit {
	var units []*unit
	for _, w := range set.tls {
		units = append(units, w.unit)
	}
	for _, st := range set.streams {
		units = append(units, st.unit)
	}
	for _, h := range set.http {
		units = append(units, h.unit)
	}
	return units
}

// without lists the parts of the set that are not in another.
func (set *listenerSet) without(other *listenerSet) []*unit {
	there := other.units()
	return slices.DeleteFunc(set.units(), func(u *unit) bool { return slices.Contains(there, u) })
}

// ways are the ways to speak to instances over TLS, by name.
func (set *listenerSet) ways() map[string]*l7.InstanceTLS {
	ways := map[string]*l7.InstanceTLS{}
	for _, w := range set.tls {
		ways[w.cfg.Name] = w.tls
	}
	return ways
}

// listen binds those listeners of the set that are among the units.
func (set *listenerSet) listen(ctx context.Context, units []*unit) error {
	for _, st := range set.streams {
		if !slices.Contains(units, st.unit) {
			continue
		}
		if err := st.listen(); err != nil {
			return fmt.Errorf("proxy.listeners: %s: %w", st.cfg.Name, err)
		}
	}
	for _, h := range set.http {
		if !slices.Contains(units, h.unit) {
			continue
		}
		if err := h.proxy.Listen(ctx); err != nil {
			return fmt.Errorf("proxy.listeners: %s: %w", h.cfg.Name, err)
		}
	}
	return nil
}

// buildSet makes the set that a configuration wants. What is so in the set
// before is taken over; the rest does not listen yet. After an error nothing is
// left of it.
func (s *server) buildSet(cfg *config.Config, before *listenerSet) (*listenerSet, error) {
	set := &listenerSet{}
	err := s.fillSet(set, cfg, before)
	if err != nil {
		for _, u := range set.without(before) {
			u.discard()
		}
		return nil, err
	}
	return set, nil
}

func (s *server) fillSet(set *listenerSet, cfg *config.Config, before *listenerSet) error {
	for _, c := range cfg.Proxy.InstanceTLS {
		if i := slices.IndexFunc(before.tls, func(w *instanceWay) bool { return w.cfg == c }); i >= 0 {
			set.tls = append(set.tls, before.tls[i])
			continue
		}
		files := l7.InstanceTLSFiles{ServerName: c.ServerName, CA: c.CA, Certificate: c.Cert, Key: c.Key, Insecure: c.Insecure}
		t, err := l7.LoadInstanceTLS(files, s.log.With("part", "proxy", "instance_tls", c.Name))
		if err != nil {
			return fmt.Errorf("proxy.instance_tls: %s: %w", c.Name, err)
		}
		set.tls = append(set.tls, &instanceWay{newUnit(t.Run, func() {}), c, t})
	}
	wanted := s.listeners(cfg)
	lend := before.lender(wanted, s.opt.Sockets.Take)
	for _, l := range wanted {
		if l.Mode.Kernel() || set.keep(&l, before) {
			continue
		}
		if s.sourceID(l.Zone) == 0 {
			return fmt.Errorf("proxy.listeners: %s: zone %s is not watched yet: restart for it first", l.Name, l.Zone)
		}
		if err := s.addListener(set, &l, lend.to(&l)); err != nil {
			return fmt.Errorf("proxy.listeners: %s: %w", l.Name, err)
		}
	}
	return nil
}

// addListener makes a listener of a set.
func (s *server) addListener(set *listenerSet, l *config.Listener, inherited func(string) *os.File) error {
	if l.Mode == config.ModeHTTP {
		h, err := s.buildHTTP(l, set.ways(), inherited)
		if err != nil {
			return err
		}
		h.want = *l
		set.http = append(set.http, h)
		return nil
	}
	st, err := s.buildStream(l, inherited)
	if err != nil {
		return err
	}
	st.want = *l
	set.streams = append(set.streams, st)
	return nil
}

// keep takes a listener over from the set before, if it was wanted as it is now.
func (set *listenerSet) keep(l *config.Listener, before *listenerSet) bool {
	for _, st := range before.streams {
		if reflect.DeepEqual(&st.want, l) {
			set.streams = append(set.streams, st)
			return true
		}
	}
	for _, h := range before.http {
		if reflect.DeepEqual(&h.want, l) {
			set.http = append(set.http, h)
			return true
		}
	}
	return false
}

// lender lends new listeners the sockets of those at the same addresses that are
// to go, so that nobody is refused in between: both take connections from one
// queue, until the old one stops. It may be of another mode.
type lender struct {
	going []lending
	// otherwise has the sockets of listeners that nobody in this process has.
	otherwise func(name string) *os.File
}

// lending is one listener that goes, and its sockets; nil: they were lent.
type lending struct {
	want    *config.Listener
	sockets map[string]syscall.Conn
}

// lender makes one for the listeners that are wanted after those of the set.
func (set *listenerSet) lender(wanted []config.Listener, otherwise func(string) *os.File) *lender {
	le := &lender{otherwise: otherwise}
	add := func(want *config.Listener, sockets map[string]syscall.Conn) {
		if !slices.ContainsFunc(wanted, func(n config.Listener) bool { return reflect.DeepEqual(&n, want) }) {
			le.going = append(le.going, lending{want, sockets})
		}
	}
	for _, st := range set.streams {
		add(&st.want, st.sockets())
	}
	for _, h := range set.http {
		add(&h.want, h.proxy.Sockets())
	}
	return le
}

// to returns what lends a listener its sockets. Of several that go at an address
// without a port it is the one of the same name, or else of the same mode.
func (le *lender) to(l *config.Listener) func(string) *os.File {
	rank := func(g *lending) int {
		switch {
		case g.sockets == nil || g.want.Listen != l.Listen || (g.want.Mode == config.ModeUDP) != (l.Mode == config.ModeUDP):
			return 0
		case g.want.Name == l.Name:
			return 3
		case g.want.Mode == l.Mode:
			return 2
		case l.Listen.Port() != 0:
			return 1
		default:
			return 0
		}
	}
	var from *lending
	for i := range le.going {
		if g := &le.going[i]; rank(g) > 0 && (from == nil || rank(g) > rank(from)) {
			from = g
		}
	}
	if from == nil {
		return le.otherwise
	}
	old, sockets := from.want.Name, from.sockets
	from.sockets = nil
	return func(name string) *os.File {
		// The names differ in those of the listeners alone.
		rest, _ := strings.CutPrefix(name, "proxy "+l.Name+" ")
		c, ok := sockets["proxy "+old+" "+rest]
		if !ok {
			return nil
		}
		f, err := handover.Duplicate(c, name)
		if err != nil {
			return nil // binding will say what is wrong
		}
		return f
	}
}

// renewal is a set of listeners that is to come into force.
type renewal struct {
	set           *listenerSet
	fresh, leaves []*unit
	done          bool // it has come into force
}

// renewProxies makes the listeners that a configuration wants, bound and not
// served yet. Those in force go on.
func (s *server) renewProxies(ctx context.Context, cfg *config.Config) (*renewal, error) {
	before := s.proxies.now.Load()
	set, err := s.buildSet(cfg, before)
	if err != nil {
		return nil, err
	}
	r := &renewal{set: set, fresh: set.without(before), leaves: before.without(set)}
	if err := set.listen(ctx, r.fresh); err != nil {
		r.discard()
		return nil, err
	}
	return r, nil
}

// discard gives up what has not come into force.
func (r *renewal) discard() {
	if r.done {
		return
	}
	for _, u := range r.fresh {
		u.discard()
	}
}

// commit puts the renewal in force: what is new is served, with the routes of the
// configuration, and what is wanted no more drains.
func (s *server) commit(ctx context.Context, r *renewal, cfg *config.Config) {
	ways := r.set.ways()
	routes := mergeRoutes(s.routeListsWith(cfg))
	for _, h := range r.set.http {
		h.proxy.SetInstanceTLS(ways)
		if slices.Contains(r.fresh, h.unit) {
			h.proxy.SetRoutes(routes) // followRoutes tells what is wrong
		}
	}
	select {
	case <-ctx.Done(): // nothing is served any more
		return
	case s.proxies.starts <- r.fresh:
	}
	r.done = true
	s.proxies.now.Store(r.set)
	for _, u := range r.fresh {
		if u.want.Name != "" {
			s.log.Info("a proxy listener was started", "listener", u.want.Name, "address", u.want.Listen)
		}
	}
	for _, u := range r.leaves {
		close(u.retired)
		if u.want.Name != "" {
			s.log.Info("a proxy listener was stopped, and drains", "listener", u.want.Name, "address", u.want.Listen)
		}
	}
}

// kernelListeners are those of modes nat and dsr, with what a restart alone
// changes.
func kernelListeners(cfg *config.Config) []config.Listener {
	return slices.DeleteFunc(slices.Clone(cfg.Proxy.Listeners), func(l config.Listener) bool { return !l.Mode.Kernel() })
}
