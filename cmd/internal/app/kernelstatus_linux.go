package app

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/musterdns/muster/cmd/internal/admin"
	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/cmd/internal/metrics"
	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/dsr"
	"github.com/musterdns/muster/lb/kernel/nat"
	"github.com/musterdns/muster/lb/kernel/vip"
)

// trafficAge is how old what was read from the kernel may be before it is read
// again.
const trafficAge = time.Second

// traffic is what the kernel has counted.
type traffic struct {
	at   time.Time
	last map[string]map[string]kernel.Traffic // by listener and instance: those that are listed
	// each is by listener and instance too, of those that may be listed again as
	// well, sums by listener and of instances that have left too: they never fall.
	each map[string]map[string]kernel.Traffic
	sums map[string]kernel.Traffic
}

// count reads the kernel's counters, if it has not been done lately.
func (p *plane) count() (traffic, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.traffic.at) < trafficAge {
		return p.traffic, nil
	}
	now, err := p.Counters()
	if err != nil {
		return p.traffic, err
	}
	next := traffic{time.Now(), now, map[string]map[string]kernel.Traffic{}, map[string]kernel.Traffic{}}
	for _, l := range p.listeners {
		listener := l.cfg.Name
		each, sum := map[string]kernel.Traffic{}, p.traffic.sums[listener]
		for _, m := range l.backend.Members() {
			each[m.ID] = p.traffic.each[listener][m.ID]
		}
		for id, t := range now[listener] {
			more := t.Since(p.traffic.last[listener][id])
			each[id] = p.traffic.each[listener][id].Plus(more)
			sum = sum.Plus(more)
		}
		next.each[listener], next.sums[listener] = each, sum
	}
	p.traffic = next
	return next, nil
}

// activeShare is the share of a core that may go into counting what is connected:
// the inverse of it.
const activeShare = 20

// active is what is connected now.
type active struct {
	mu    sync.Mutex
	at    time.Time
	took  time.Duration
	count map[string]map[string]int64 // by listener and instance
	err   error
}

// connected counts what is connected, if it has not been done lately. Only the
// connections of nat have an end that the kernel sees.
func (p *plane) connected() (map[string]map[string]int64, error) {
	if p.nat == nil {
		return nil, nil
	}
	a := &p.active
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.at) < max(trafficAge, activeShare*a.took) {
		return a.count, a.err
	}
	began := time.Now()
	a.count, a.err = p.nat.Active()
	a.at = time.Now()
	a.took = a.at.Sub(began)
	return a.count, a.err
}

// carried adds what the kernel does for instances to how the proxies see them.
func (k *kernelProxies) carried(list []dispatch.Info) {
	for _, p := range k.planes {
		t, _ := p.count()             // muster_proxy_kernel_failing says whether
		connected, _ := p.connected() // something is wrong
		for _, l := range p.listeners {
			i := slices.IndexFunc(list, func(in dispatch.Info) bool { return in.Ref == l.ref })
			if i < 0 {
				continue
			}
			for n := range list[i].Instances {
				in := &list[i].Instances[n]
				c, open := t.each[l.cfg.Name][in.ID], connected[l.cfg.Name][in.ID]
				in.Active += open
				in.Total += int64(c.Connections)
				in.BytesIn += int64(c.Bytes)
				in.BytesOut += int64(c.ReplyBytes)
				list[i].Active += open
			}
		}
	}
}

// states are the listeners as the API shows them.
func (k *kernelProxies) states() []api.ProxyListener {
	var out []api.ProxyListener
	for _, p := range k.planes {
		t, err := p.count()
		connected, cerr := p.connected()
		for _, l := range p.listeners {
			out = append(out, p.state(l, &t, connected[l.cfg.Name], errors.Join(err, cerr)))
		}
	}
	return out
}

// state is one listener with what the kernel has counted, unless reading that
// failed.
func (p *plane) state(l *kernelListener, t *traffic, connected map[string]int64, counting error) api.ProxyListener {
	out := api.ProxyListener{
		Name: l.cfg.Name, Mode: string(l.cfg.Mode), Address: l.cfg.Listen.String(), Service: l.cfg.Service,
		Taken: t.sums[l.cfg.Name].Connections, Interface: l.cfg.Interface,
	}
	if p.dsr != nil {
		out.Attached = p.dsr.Mode().String()
	}
	p.mu.Lock()
	failed := errors.Join(p.err, counting)
	p.mu.Unlock()
	if failed != nil {
		out.Error = failed.Error()
	}
	members := l.backend.Members()
	wanted, _ := l.service(members)
	for i := range members {
		m := &members[i]
		c := t.each[l.cfg.Name][m.ID]
		out.Active += connected[m.ID]
		row := api.ProxyTraffic{
			ID: m.ID, Address: m.Addr, Active: connected[m.ID], Connections: c.Connections, Packets: c.Packets, Bytes: c.Bytes,
			ReplyPackets: c.ReplyPackets, ReplyBytes: c.ReplyBytes, Why: p.whyOut(l, m.ID),
		}
		if n := slices.IndexFunc(wanted.Instances, func(in kernel.Instance) bool { return in.ID == m.ID }); row.Why == "" && n >= 0 {
			row.In = !wanted.Instances[n].Draining
			if !row.In {
				row.Why = "drained: what it has goes on"
			}
		} else if row.Why == "" {
			row.Why = "down: what it had was reset"
		}
		out.Instances = append(out.Instances, row)
	}
	return out
}

// whyOut says why an instance cannot take part; empty: it can.
func (p *plane) whyOut(l *kernelListener, id string) string {
	for _, o := range p.leftOut(l.cfg.Name) {
		if o.id == id {
			return o.why
		}
	}
	return ""
}

// leftOut lists a listener's instances that cannot take part.
func (p *plane) leftOut(listener string) []leftOut {
	p.mu.Lock()
	out := slices.Clone(p.left[listener])
	p.mu.Unlock()
	if p.dsr == nil {
		return out
	}
	for _, l := range p.dsr.Left() {
		if l.Service == listener {
			out = append(out, leftOut{id: l.Instance, why: l.Why})
		}
	}
	return out
}

// vipStates are the virtual addresses as the API shows them.
func (k *kernelProxies) vipStates() []api.ProxyVIP {
	var out []api.ProxyVIP
	for _, v := range k.vips {
		st := v.Status()
		out = append(out, api.ProxyVIP{
			Address: v.cfg.Address, Interface: v.cfg.Interface, Holding: st.Holding, Until: st.Deadline, Terms: st.Terms, Failures: st.Failures,
		})
	}
	return out
}

// explain says which instance a listener's next connection from a client would go
// to; found is false if no listener of the kernel is meant.
func (k *kernelProxies) explain(q admin.ProxyQuestion) (out api.ProxyExplanation, found bool, err error) {
	addr, _ := netip.ParseAddrPort(q.Target) // the zero value is nobody's
	for _, p := range k.planes {
		for _, l := range p.listeners {
			if l.cfg.Name == q.Target || l.cfg.Listen == addr {
				out, err = k.explainAt(p, l, q.Client)
				return out, true, err
			}
		}
	}
	return out, false, nil
}

func (k *kernelProxies) explainAt(p *plane, l *kernelListener, client netip.Addr) (api.ProxyExplanation, error) {
	// The port that the client will have is not known: 0 stands for it.
	c, err := p.Explain(l.cfg.Name, netip.AddrPortFrom(client, 0))
	if err != nil {
		return api.ProxyExplanation{}, err
	}
	infos := []dispatch.Info{l.backend.Info()}
	k.carried(infos)
	out := api.ProxyExplanation{
		Listener: l.cfg.Name, Mode: string(l.cfg.Mode), Service: l.cfg.Service, Instance: c.Instance,
		Instances: proxyInstances(infos[0].Instances),
	}
	for i := range out.Instances {
		in := &out.Instances[i]
		if why := p.whyOut(l, in.ID); why != "" {
			in.In, in.Share, in.Why = false, 0, why
		}
	}
	switch {
	case c.Instance == "":
		out.Certain, out.Why = true, "no instance may be served: the client is refused"
		return out, nil
	case l.cfg.Affinity == config.AffinityClient:
		out.Certain, out.Why = true, fmt.Sprintf("the client's address is in slot %d of the service's table", c.Slot)
	default:
		out.Why = fmt.Sprintf("a connection from port 0 is in slot %d of the service's table; the client's port decides", c.Slot)
	}
	out.Address = c.Addr.String()
	return out, nil
}

// kernelFindings is what is wrong with the modes of the kernel.
func (s *server) kernelFindings() []api.Finding {
	k := s.proxies.kernel
	var needs []kernel.Need
	var out []api.Finding
	asked := map[config.Mode]bool{}
	for _, p := range k.planes {
		mode := p.listeners[0].cfg.Mode
		if mode == config.ModeNAT {
			var vips []netip.Addr
			for _, l := range p.listeners {
				vips = append(vips, l.cfg.Listen.Addr())
			}
			needs = append(needs, nat.Capabilities(vips...)...)
		} else {
			if !asked[mode] {
				needs = append(needs, dsr.Capabilities("")...)
			}
			needs = append(needs, p.dsr.Needs()...)
		}
		asked[mode] = true
		p.mu.Lock()
		err := p.err
		p.mu.Unlock()
		if err != nil {
			out = append(out, api.Finding{Severity: api.SeverityError, Subject: "proxy mode " + string(mode), Problem: err.Error()})
		}
		for _, l := range p.listeners {
			for _, o := range p.leftOut(l.cfg.Name) {
				out = append(out, api.Finding{
					Severity: api.SeverityWarning, Subject: "listener " + l.cfg.Name,
					Problem: fmt.Sprintf("instance %s of %s gets nothing: %s", o.id, l.cfg.Service, o.why),
				})
			}
		}
	}
	for _, v := range k.vips {
		needs = append(needs, vip.Capabilities(v.cfg.Interface)...)
		if err := v.Status().Err; err != nil {
			out = append(out, api.Finding{
				Severity: api.SeverityError, Subject: "virtual address " + v.cfg.Address.Addr().String(), Problem: err.Error(),
			})
		}
	}
	for _, n := range needs {
		out = append(out, api.Finding{Severity: api.SeverityWarning, Subject: "kernel", Problem: n.What, Mend: n.Mend})
	}
	return out
}

// kernelFamilies are about listeners of modes nat and dsr, and virtual addresses.
func (s *server) kernelFamilies() []metrics.Family {
	k := s.proxies.kernel
	sum := func(name, help string, f func(*kernel.Traffic) uint64) metrics.Family {
		return metrics.Family{Name: name, Help: help, Kind: metrics.Counter, Labels: []string{"listener"}, Collect: func(emit metrics.Emit) {
			for _, p := range k.planes {
				t, _ := p.count() // muster_proxy_kernel_failing says whether something is wrong
				for _, l := range p.listeners {
					n := t.sums[l.cfg.Name]
					emit(float64(f(&n)), l.cfg.Name)
				}
			}
		}}
	}
	held := func(name, help string, f func(*api.ProxyVIP) float64) metrics.Family {
		kind := one(name, help, nil).Kind
		return metrics.Family{Name: name, Help: help, Kind: kind, Labels: []string{"vip"}, Collect: func(emit metrics.Emit) {
			for _, v := range k.vipStates() {
				emit(f(&v), v.Address.Addr().String())
			}
		}}
	}
	return []metrics.Family{
		sum("muster_proxy_kernel_connections_total", "Connections that the kernel has given to instances.", func(t *kernel.Traffic) uint64 { return t.Connections }),
		sum("muster_proxy_kernel_packets_total", "Packets to instances.", func(t *kernel.Traffic) uint64 { return t.Packets }),
		sum("muster_proxy_kernel_bytes_total", "Octets to instances.", func(t *kernel.Traffic) uint64 { return t.Bytes }),
		sum("muster_proxy_kernel_reply_packets_total", "Packets from instances that came back through this machine.", func(t *kernel.Traffic) uint64 { return t.ReplyPackets }),
		sum("muster_proxy_kernel_reply_bytes_total", "Octets from instances that came back through this machine.", func(t *kernel.Traffic) uint64 { return t.ReplyBytes }),
		{
			Name: "muster_proxy_kernel_failing", Help: "1: the kernel could not be told of the last change.", Kind: metrics.Gauge, Labels: []string{"listener"},
			Collect: func(emit metrics.Emit) {
				for _, p := range k.planes {
					p.mu.Lock()
					failing := 0.0
					if p.err != nil {
						failing = 1
					}
					p.mu.Unlock()
					for _, l := range p.listeners {
						emit(failing, l.cfg.Name)
					}
				}
			},
		},
		held("muster_proxy_vip_held", "1: this server holds the virtual address.", func(v *api.ProxyVIP) float64 {
			if v.Holding {
				return 1
			}
			return 0
		}),
		held("muster_proxy_vip_terms_total", "Times that this server has come to hold the virtual address.", func(v *api.ProxyVIP) float64 { return float64(v.Terms) }),
		held("muster_proxy_vip_failures_total", "Failures of campaigns and of changes to the interface.", func(v *api.ProxyVIP) float64 { return float64(v.Failures) }),
	}
}
