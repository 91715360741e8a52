// Package nat is the data plane that the kernel's own address translation makes:
// nftables sends each new connection to a VIP to an instance, and conntrack keeps
// it there. Muster only writes tables; packets never pass through it, and a
// restart, a crash or an upgrade of Muster cuts nothing.
//
// Each service has a Maglev map of 65,537 slots. The kernel hashes the client's
// address and port (or the address alone) to a slot, whose value is the
// instance; Explain computes the same in Go. A change of instances rewrites the
// slots that changed, all services in one transaction, and touches no connection:
// a draining instance keeps those it has.
//
// Kill is for an instance that is down. Beside moving its slots it resets its
// connections: what a client sends is answered with a reset from then on, by this
// machine, whatever becomes of the instance. Clients that send nothing are asked
// for an acknowledgement, which is answered so too (kernel.Wake), so that they
// learn of it in a round trip and not when their patience ends. Half-open and UDP
// flows are forgotten: the next packet goes to another instance.
//
// Clients must reach the VIP through this machine, and replies must pass it as
// well: instances route clients through it, or the service is masqueraded. When
// another machine takes over a VIP, it translates connections that it does not
// know with the same table: they go on where the instances are the same and the
// service is not masqueraded, from the client's next packet on; what an instance
// sends before is dropped and sent again. For the same reason connections straight
// to an instance's address and port, as of a checker, must pass this machine in
// both directions or in none.
//
// The tables are "muster" of the families ip and ip6, unless Config says
// otherwise, each from its first service on. Nothing else is touched. Remove removes
// them.
package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/musterdns/muster/lb"
	"github.com/musterdns/muster/lb/kernel"
)

// Config is what a plane needs to know. The zero value is usable.
type Config struct {
	// Table is the name of the nftables tables; "" is "muster".
	Table string
	// ServicesMax limits the services, each of which takes 65,537 slots (about
	// 8 MB of kernel memory with IPv4 and 10 MB with IPv6). 0 is 256.
	ServicesMax int
}

const (
	defaultTable       = "muster"
	defaultServicesMax = 256
)

// ErrTooManyServices is returned by Apply beyond Config.ServicesMax.
var ErrTooManyServices = errors.New("too many services")

// Plane is the data plane of the network namespace it was made in; its methods
// must be called in that namespace. It is safe for concurrent use: calls wait for
// each other.
type Plane struct {
	config Config

	mu       sync.Mutex
	services map[string]kernel.Service // as applied, less what was killed
	halves   [2]*half                  // IPv4 and IPv6
	// early are the VIPs that were held while known was false, or their table was not there.
	early map[netip.Addr]time.Time
	// known is whether halves mirror the kernel: not before the first call and
	// after a failed transaction.
	known bool
	// conn is kept: the kernel lets a socket go only when it has freed all that
	// the last transaction replaced, which takes it several milliseconds. nil
	// before the first call and after a failure.
	conn *nftables.Conn
}

// half is one family's table, as the kernel has it.
type half struct {
	family
	exists  bool
	strange bool                         // there is one by its name that is not of this version, or not as it was left
	sets    map[string]map[string]string // of small sets: key to value; counters have none
	slots   map[string][]byte            // by service: values of all slots, none if it has no instance
	// chains are those that choose, with what they choose for; nil for those
	// that an earlier process made.
	chains map[string]*kernel.Service
	dead   map[string]time.Time // the set's keys, with when they were put there
	shape  *shape               // of the rules; nil: there are none
}

// New returns a plane that has not touched the kernel: the first Apply does. What
// an earlier process has left in the table stays as it is until then, and is
// changed to what is wanted rather than made anew.
func New(c Config) (*Plane, error) {
	if c.Table == "" {
		c.Table = defaultTable
	}
	if c.ServicesMax == 0 {
		c.ServicesMax = defaultServicesMax
	}
	if c.ServicesMax < 0 {
		return nil, fmt.Errorf("nat: ServicesMax %d is negative", c.ServicesMax)
	}
	p := &Plane{config: c, services: map[string]kernel.Service{}, early: map[netip.Addr]time.Time{}}
	for i, f := range families() {
		p.halves[i] = newHalf(f)
	}
	return p, nil
}

func newHalf(f family) *half {
	return &half{
		family: f, sets: map[string]map[string]string{}, slots: map[string][]byte{},
		chains: map[string]*kernel.Service{}, dead: map[string]time.Time{},
	}
}

const (
	// slotsMax is how many slots one transaction rewrites. Beyond it services
	// change one after the other, each in a transaction of its own.
	slotsMax = 8 * lb.MaglevSlots
	// writeBuffer holds such a transaction: a slot takes up to 100 octets, with
	// the message that deletes what it was.
	writeBuffer = 100 * (slotsMax + lb.MaglevSlots)
)

// dial opens a connection to nftables whose buffers hold a whole transaction and
// its answers. The caller must CloseLasting it.
func dial() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		if err := c.SetReadBuffer(writeBuffer); err != nil {
			return err
		}
		return c.SetWriteBuffer(writeBuffer)
	}))
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return c, nil
}

// talk runs f with the plane's connection. After a failure that is given up, with
// what f may have queued and answers that nobody has read.
func (p *Plane) talk(f func(*nftables.Conn) error) error {
	if p.conn == nil {
		c, err := dial()
		if err != nil {
			return err
		}
		p.conn = c
	}
	err := f(p.conn)
	if err != nil {
		return errors.Join(err, p.hangUp())
	}
	return nil
}

// hangUp closes the plane's connection.
func (p *Plane) hangUp() error {
	c := p.conn
	if c == nil {
		return nil
	}
	p.conn = nil
	return c.CloseLasting()
}

// Close ends the plane. What the kernel has stays, for the next process.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hangUp()
}

// Apply makes the services, all of them and no other, what the kernel does, in
// one transaction: either all changes take effect between two packets, or none
// and an error is returned. Where more than 500,000 slots change, as at the start
// of many services, that holds for each service. Established connections stay
// where they are. Applying the same again changes nothing. An instance that was
// killed and is listed again is alive again.
func (p *Plane) Apply(ctx context.Context, services []kernel.Service) error {
	if err := kernel.Validate(services); err != nil {
		return fmt.Errorf("nat: %w", err)
	}
	if len(services) > p.config.ServicesMax {
		return fmt.Errorf("nat: %w: %d, at most %d", ErrTooManyServices, len(services), p.config.ServicesMax)
	}
	wanted := map[string]kernel.Service{}
	for _, s := range kernel.Clone(services) {
		wanted[s.Name] = s
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.change(ctx, wanted, ""); err != nil {
		return fmt.Errorf("nat: applying %d services: %w", len(services), err)
	}
	for vip, until := range p.early {
		if !p.halfOf(vip).exists {
			continue
		}
		if err := p.hold(vip, until); err != nil {
			return fmt.Errorf("nat: holding %v: %w", vip, err)
		}
		delete(p.early, vip)
	}
	return nil
}

// change writes the difference between what the kernel has and what is wanted.
// kill is the key of an instance whose connections are to be reset; "" for none.
func (p *Plane) change(ctx context.Context, wanted map[string]kernel.Service, kill string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.talk(func(c *nftables.Conn) error { return p.write(c, wanted, kill) })
}

// write is change by a connection.
func (p *Plane) write(c *nftables.Conn, wanted map[string]kernel.Service, kill string) error {
	before := p.services
	if !p.known {
		before = nil
		for _, h := range p.halves {
			if err := h.read(c, p.config.Table); err != nil {
				return err
			}
		}
		p.known = true
	}
	next := [2]*half{}
	changes := 0
	for i, h := range p.halves {
		next[i] = h.want(wanted, before)
		next[i].bury(h, wanted, kill, time.Now())
		changes += changed(h, next[i])
	}
	// From here on the kernel has it or has not: only reading can tell.
	p.known = false
	for i, h := range p.halves {
		if changes <= slotsMax {
			break
		}
		if err := p.fillOneByOne(c, h, next[i]); err != nil {
			return err
		}
	}
	for i, h := range p.halves {
		// Without a service a table would have the kernel track what is not ours.
		if next[i].exists = h.exists || len(next[i].chains) > 0; !next[i].exists {
			if h.strange {
				c.DelTable(&nftables.Table{Name: p.config.Table, Family: h.table})
			}
			next[i] = newHalf(h.family)
			continue
		}
		if err := newTransaction(c, p.config.Table, h, next[i]).write(); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return explainError(err)
	}
	p.known = true
	p.halves, p.services = next, wanted
	return nil
}

// fillOneByOne changes the slots of each service in a transaction of its own, and
// notes that the kernel has them. Those of new services nothing refers to yet.
func (p *Plane) fillOneByOne(c *nftables.Conn, h, next *half) error {
	for name, slots := range next.slots {
		t := newTransaction(c, p.config.Table, h, next)
		if err := t.fill(name); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return explainError(err)
		}
		h.exists = true
		h.slots[name] = slots
	}
	return nil
}

// want is the table of this family that serves the services. Slots of services
// that are as before are not computed again.
func (h *half) want(services, before map[string]kernel.Service) *half {
	next := newHalf(h.family)
	for name := range smallNames() {
		next.sets[name] = map[string]string{}
	}
	next.sets[setHeld] = h.sets[setHeld] // Hold writes it
	for _, s := range services {
		if !h.of(s.VIP.Addr()) {
			continue
		}
		chain := chooseName(&s)
		next.chains[chain] = &s
		if slots, ok := h.slots[s.Name]; ok && slices.Equal(before[s.Name].Instances, s.Instances) {
			next.slots[s.Name] = slots
		} else {
			next.slots[s.Name] = h.fill(&s)
		}
		front := endpoint(s.VIP, s.Protocol)
		next.sets[setFronts][front] = chain
		next.sets[setVIPs][front] = ""
		if s.Fenced {
			next.sets[setFenced][string(s.VIP.Addr().AsSlice())] = ""
		}
		for i := range s.Instances {
			key := endpoint(s.Instances[i].Addr, s.Protocol)
			for _, set := range []string{setInstances, setConnections, setSent, setReplied} {
				next.sets[set][key] = ""
			}
			if s.Masquerade {
				next.sets[setMasquerade][key] = ""
			}
		}
	}
	return next
}

// fill computes the values of a service's slots.
func (h *half) fill(s *kernel.Service) []byte {
	table := s.Table()
	if table == nil {
		return nil
	}
	values := make([]string, len(s.Instances))
	for i := range s.Instances {
		values[i] = target(s.Instances[i].Addr)
	}
	out := make([]byte, 0, lb.MaglevSlots*h.targetSize())
	for _, i := range table {
		out = append(out, values[i]...)
	}
	return out
}

// bury carries the dead over from what the kernel has, less those that it has
// forgotten by itself and those that live again, and with the one to be killed. Then
// it is known what rules are needed.
func (h *half) bury(before *half, services map[string]kernel.Service, kill string, now time.Time) {
	for key, since := range before.dead {
		if now.Sub(since) < deadTimeout {
			h.dead[key] = since
		}
	}
	for _, s := range services {
		for i := range s.Instances {
			if !s.Instances[i].Draining {
				delete(h.dead, endpoint(s.Instances[i].Addr, s.Protocol))
			}
		}
	}
	if kill != "" && len(kill) == h.endpointSize() {
		h.dead[kill] = now
	}
	h.shape = &shape{fenced: len(h.sets[setFenced]) > 0, dead: len(h.dead) > 0}
}

// Hold says that this machine holds the VIP until then; its fenced services are
// served that long and no longer, whatever becomes of this process. A time that
// has passed means that the VIP is not held. Before there is a service of its family
// it is only noted.
func (p *Plane) Hold(ctx context.Context, vip netip.Addr, until time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if !p.known || !p.halfOf(vip).exists {
		p.early[vip] = until
		return nil
	}
	if err := p.hold(vip, until); err != nil {
		return fmt.Errorf("nat: holding %v: %w", vip, err)
	}
	return nil
}

// hold writes how long a VIP is held.
func (p *Plane) hold(vip netip.Addr, until time.Time) error {
	return p.talk(func(c *nftables.Conn) error { return p.writeHeld(c, vip, until) })
}

func (p *Plane) writeHeld(c *nftables.Conn, vip netip.Addr, until time.Time) error {
	table := &nftables.Table{Name: p.config.Table, Family: p.halfOf(vip).table}
	set := &nftables.Set{Table: table, Name: setHeld, HasTimeout: true}
	left := time.Until(until)
	element := []nftables.SetElement{{Key: vip.AsSlice(), Timeout: max(left, time.Millisecond)}}
	// There may be one or none: adding makes sure that there is one to delete.
	err := errors.Join(c.SetAddElements(set, element), c.SetDeleteElements(set, element))
	if left >= time.Millisecond {
		err = errors.Join(err, c.SetAddElements(set, element))
	}
	if err != nil {
		return err
	}
	return explainError(c.Flush())
}

// halfOf is that of an address's family.
func (p *Plane) halfOf(a netip.Addr) *half {
	return p.halves[slices.IndexFunc(p.halves[:], func(h *half) bool { return h.of(a) })]
}

// Remove takes away the tables and all that is in them. Connections through them
// end, unless something else on this machine has the kernel translate addresses:
// a process that will be started again does not call it.
func (p *Plane) Remove() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = false
	err := p.talk(func(c *nftables.Conn) error {
		for _, h := range p.halves {
			t := &nftables.Table{Name: p.config.Table, Family: h.table}
			c.AddTable(t) // so that there is one to delete
			c.DelTable(t)
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("nat: removing the tables: %w", explainError(err))
	}
	for i, h := range p.halves {
		p.halves[i] = newHalf(h.family)
	}
	p.services = map[string]kernel.Service{}
	return nil
}
