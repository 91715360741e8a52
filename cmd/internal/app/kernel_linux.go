package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/dsr"
	"github.com/musterdns/muster/lb/kernel/nat"
)

const (
	// kernelLock is the abstract socket, one a network namespace, that the
	// process has which works the data planes there.
	kernelLock = "@muster-kernel"
	// kernelRetry is how long after a failure the planes are tried again.
	kernelRetry = time.Second
)

// dataPlane is what nat and dsr have in common.
type dataPlane interface {
	Apply(ctx context.Context, services []kernel.Service) error
	Kill(ctx context.Context, service string, addr netip.AddrPort) (int, error)
	Hold(ctx context.Context, vip netip.Addr, until time.Time) error
	Counters() (map[string]map[string]kernel.Traffic, error)
	Explain(service string, client netip.AddrPort) (kernel.Choice, error)
	Close() error
}

// kernelProxies is what the kernel does for this server: the listeners of modes
// nat and dsr, and the virtual addresses.
type kernelProxies struct {
	planes []*plane
	vips   []*heldVIP
	lock   *net.UnixListener // nil without listeners
}

// plane is one data plane with the listeners that it serves. What listeners want
// goes to the kernel in step, on one goroutine.
type plane struct {
	dataPlane

	nat       *nat.Plane // the plane of mode nat, or nil
	dsr       *dsr.Plane // that of mode dsr, or nil
	log       *slog.Logger
	listeners []*kernelListener
	applied   []kernel.Service // nil: nothing was, in this process
	killed    map[victim]bool  // until they are no longer down
	ready     chan struct{}    // closed after the first step that succeeds

	mu      sync.Mutex
	err     error // of the last step
	left    map[string][]leftOut
	traffic traffic

	active active
}

// kernelListener is one listener of mode nat or dsr.
type kernelListener struct {
	cfg     config.Listener
	ref     dispatch.Ref
	backend *dispatch.Backend
	fenced  bool
}

// victim is an instance that is down.
type victim struct {
	listener, id string
	addr         netip.AddrPort
}

// leftOut is an instance that cannot take part, and why.
type leftOut struct {
	id   string
	addr netip.AddrPort
	why  string
}

// buildKernel makes what the kernel is to do, and does nothing yet.
func (s *server) buildKernel(cfg *config.Config) error {
	k := &kernelProxies{}
	s.proxies.kernel = k
	for _, l := range cfg.Proxy.Listeners {
		if !l.Mode.Kernel() {
			continue
		}
		p, err := k.plane(&l, s.log)
		if err != nil {
			return fmt.Errorf("proxy.listeners: %s: %w", l.Name, err)
		}
		ref := dispatch.Ref{Source: s.sourceID(l.Zone), Service: l.Service, Port: l.Port, UDP: l.Protocol == config.ProtocolUDP, Tag: l.Tag}
		backend, err := s.proxies.dispatch.Acquire(ref)
		if err != nil {
			return fmt.Errorf("proxy.listeners: %s: %w", l.Name, err)
		}
		fenced := slices.ContainsFunc(cfg.Proxy.VIPs, func(v config.VIP) bool { return v.Address.Addr() == l.Listen.Addr() })
		p.listeners = append(p.listeners, &kernelListener{l, ref, backend, fenced})
	}
	return s.buildVIPs(cfg)
}

// plane is the plane of a listener: nat's, or that of its interface. A plane of
// dsr is made when the server listens, as making it attaches its program.
func (k *kernelProxies) plane(l *config.Listener, log *slog.Logger) (*plane, error) {
	for _, p := range k.planes {
		if first := &p.listeners[0].cfg; first.Mode == l.Mode && first.Interface == l.Interface {
			return p, nil
		}
	}
	p := &plane{log: log.With("part", "proxy", "mode", string(l.Mode)), killed: map[victim]bool{}, ready: make(chan struct{})}
	if l.Mode == config.ModeNAT {
		n, err := nat.New(nat.Config{})
		if err != nil {
			return nil, err
		}
		p.nat, p.dataPlane = n, n
	}
	k.planes = append(k.planes, p)
	return p, nil
}

// listenKernel attaches the programs of dsr and takes away what earlier processes
// have left for modes that are not used any more.
func (s *server) listenKernel() error {
	k := s.proxies.kernel
	if len(k.planes) == 0 && (s.opt.Dev || os.Geteuid() != 0) {
		return nil // what there is is another's, or cannot be touched
	}
	lock, err := lockKernel(s.opt.Sockets.Take(kernelLock))
	if err != nil && len(k.planes) == 0 {
		return nil // another process works the planes
	}
	if err != nil {
		return fmt.Errorf("modes nat and dsr: %w", err)
	}
	k.lock = lock
	var interfaces []string
	for _, p := range k.planes {
		l := &p.listeners[0].cfg
		if l.Mode != config.ModeDSR {
			continue
		}
		interfaces = append(interfaces, l.Interface)
		modes := map[config.Attach]dsr.Mode{config.AttachNative: dsr.XDPNative, config.AttachGeneric: dsr.XDPGeneric, config.AttachTCX: dsr.TCX}
		if p.dsr, err = dsr.New(dsr.Config{Interface: l.Interface, Mode: modes[l.Attach]}); err != nil {
			for _, need := range dsr.Capabilities("") {
				err = fmt.Errorf("%w; %s: %s", err, need.What, need.Mend)
			}
			return fmt.Errorf("%s: %w", l.Name, err)
		}
		p.dataPlane = p.dsr
		p.log.Info("program attached", "interface", l.Interface, "attached", p.dsr.Mode().String())
	}
	s.sweepKernel(interfaces)
	if len(k.planes) == 0 {
		k.close()
	}
	return nil
}

// lockKernel makes this process the one that works the planes of its network
// namespace; file is what the process before it has handed over.
func lockKernel(file *os.File) (*net.UnixListener, error) {
	if file != nil {
		defer file.Close()
		l, err := net.FileListener(file)
		if err != nil {
			return nil, fmt.Errorf("taking over the lock: %w", err)
		}
		return l.(*net.UnixListener), nil // as lockKernel made it
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: kernelLock, Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errors.New("another muster works them in this network namespace: end it, or take its listeners into one configuration")
	}
	return l, err
}

// sweepKernel takes away what is configured no more.
func (s *server) sweepKernel(interfaces []string) {
	removed, err := dsr.Sweep("", interfaces)
	if len(removed) > 0 {
		s.log.Info("programs of interfaces that are not configured any more were detached", "interfaces", removed)
	}
	if err != nil {
		s.log.Warn("what an earlier process has attached stays", "error", err)
	}
	if slices.ContainsFunc(s.proxies.kernel.planes, func(p *plane) bool { return p.nat != nil }) {
		return // Apply leaves nothing that is not wanted
	}
	n, err := nat.New(nat.Config{})
	if err == nil {
		err = errors.Join(n.Remove(), n.Close())
	}
	if err != nil {
		s.log.Debug("what an earlier process has left in nftables, if anything, stays", "error", err)
	}
}

// sockets are for a process to follow this one.
func (k *kernelProxies) sockets() map[string]syscall.Conn {
	if k.lock == nil {
		return nil
	}
	return map[string]syscall.Conn{kernelLock: k.lock}
}

// close leaves everything to the next process as it is.
func (k *kernelProxies) close() {
	for _, p := range k.planes {
		if p.dataPlane != nil { // a program may not have been attached
			_ = p.Close() // what the kernel has stays
		}
	}
	if k.lock != nil {
		k.lock.Close()
		k.lock = nil
	}
}

// runKernel has the kernel do what the view says until ctx ends. Nothing is taken
// back then: connections go on without this process. Addresses are campaigned for
// once the planes know what to do with them.
func (s *server) runKernel(ctx context.Context) error {
	k := s.proxies.kernel
	if len(k.planes)+len(k.vips) == 0 {
		return nil
	}
	defer k.close()
	s.awaitState(ctx) // before, no service has an instance
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range k.planes {
		group.Go(func() error { s.followView(ctx, p); return nil })
		if p.dsr != nil {
			group.Go(func() error { p.followNeighbours(ctx); return nil })
		}
	}
	for _, v := range k.vips {
		group.Go(func() error {
			for _, p := range k.planes {
				select {
				case <-p.ready:
				case <-ctx.Done():
				}
			}
			return v.Run(ctx)
		})
	}
	return group.Wait()
}

// followNeighbours keeps the instances' MAC addresses up to date until ctx ends.
func (p *plane) followNeighbours(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.dsr.Run(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("the neighbours are not known for a moment", "error", err)
			pause(ctx, kernelRetry)
		}
	}
}

// followView steps a plane at each change of the view, and again after a failure.
func (s *server) followView(ctx context.Context, p *plane) {
	for told := false; ctx.Err() == nil; {
		changed := s.pool.Published()
		err := p.step(ctx)
		if ctx.Err() != nil {
			return
		}
		p.report(err)
		var again <-chan time.Time
		if err != nil {
			again = time.After(kernelRetry)
		} else if !told {
			close(p.ready)
			told = true
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-again:
		}
	}
}

// report notes how a step went, and logs when that changes.
func (p *plane) report(err error) {
	p.mu.Lock()
	before := p.err
	p.err = err
	p.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		p.log.Error("the kernel was not told of changes, what it had stays in force", "error", err)
	case err == nil && before != nil:
		p.log.Info("the kernel is told of changes again")
	}
}

// step makes the kernel do what the view says now. Instances that have come to be
// down are killed first, once: that is what is urgent.
func (p *plane) step(ctx context.Context) error {
	services := make([]kernel.Service, 0, len(p.listeners))
	left := map[string][]leftOut{}
	down := map[victim]bool{}
	for _, l := range p.listeners {
		members := l.backend.Members()
		s, out := l.service(members)
		services, left[l.cfg.Name] = append(services, s), out
		for i := range members {
			if m := &members[i]; m.End == dispatch.EndDown {
				down[victim{l.cfg.Name, m.ID, m.Addr}] = true
			}
		}
	}
	p.mu.Lock()
	p.left = left
	p.mu.Unlock()
	if p.applied == nil { // Kill needs the services
		if err := p.Apply(ctx, services); err != nil {
			return err
		}
		p.applied = services
	}
	err := p.kill(ctx, down)
	if !reflect.DeepEqual(services, p.applied) {
		_, _ = p.count() // who leaves takes his counters along
		if aerr := p.Apply(ctx, services); aerr != nil {
			return errors.Join(err, aerr)
		}
		p.applied = services
	}
	return err
}

// kill has the connections of instances reset that are down and were not before.
func (p *plane) kill(ctx context.Context, down map[victim]bool) error {
	for v := range p.killed {
		if !down[v] {
			delete(p.killed, v)
		}
	}
	var errs []error
	for v := range down {
		if p.killed[v] {
			continue
		}
		_, _ = p.count() // who is killed takes his counters along
		n, err := p.Kill(ctx, v.listener, v.addr)
		if err != nil && n == 0 {
			errs = append(errs, err)
			continue
		}
		p.killed[v] = true
		p.log.Info("connections to an instance that is down were reset", "listener", v.listener, "instance", v.id, "address", v.addr.String(), "connections", n)
		if err != nil {
			p.log.Warn("not all of them could be", "listener", v.listener, "instance", v.id, "error", err)
		}
	}
	return errors.Join(errs...)
}

// service is what the kernel is to do for a listener, and who cannot take part.
func (l *kernelListener) service(members []dispatch.Member) (kernel.Service, []leftOut) {
	s := kernel.Service{
		Name: l.cfg.Name, VIP: l.cfg.Listen, Protocol: kernel.TCP, Masquerade: l.cfg.Masquerade, Fenced: l.fenced,
	}
	if l.cfg.Protocol == config.ProtocolUDP {
		s.Protocol = kernel.UDP
	}
	if l.cfg.Affinity == config.AffinityClient {
		s.Affinity = kernel.BySource
	}
	var left []leftOut
	taken := map[netip.AddrPort]string{}
	for i := range members {
		m := &members[i]
		if m.End == dispatch.EndDown {
			continue
		}
		if why := l.unfit(m.Addr, taken[m.Addr]); why != "" {
			left = append(left, leftOut{m.ID, m.Addr, why})
			continue
		}
		taken[m.Addr] = m.ID
		s.Instances = append(s.Instances, kernel.Instance{ID: m.ID, Addr: m.Addr, Weight: m.Weight, Draining: m.End == dispatch.EndDrain})
	}
	return s, left
}

// unfit says why the kernel cannot forward to an address; empty: it can. other is
// an instance that has the same.
func (l *kernelListener) unfit(addr netip.AddrPort, other string) string {
	switch {
	case !addr.IsValid() || addr.Port() == 0:
		return "has no such port"
	case addr.Addr().Is4() != l.cfg.Listen.Addr().Is4() || addr.Addr().Is4In6():
		return "is not of the family of " + l.cfg.Listen.Addr().String()
	case l.cfg.Mode == config.ModeDSR && addr.Port() != l.cfg.Listen.Port():
		return fmt.Sprintf("is not at port %d, which mode dsr cannot change", l.cfg.Listen.Port())
	case other != "":
		return "is at the address of " + other
	}
	return ""
}
