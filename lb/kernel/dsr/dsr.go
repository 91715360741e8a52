// Package dsr is the data plane of direct server return: an eBPF program sends a
// client's packets on to an instance on the same link by changing their MAC
// addresses, and the instance, which has the VIP as well, answers the client
// directly. Replies never pass this machine, which makes this the plane for much
// traffic; the price is that no port can be changed and that instances must be on
// the link.
//
// An instance takes part when it has the VIP on an interface that does not answer
// ARP for it (Linux: the VIP on lo with net.ipv4.conf.all.arp_ignore=1 and
// arp_announce=2) and serves the VIP's port.
//
// A new connection goes where the service's Maglev table says, by the same hash
// as with package nat; then a table of flows, which forgets the least recently
// used, keeps it there whatever becomes of the Maglev table. Another balancer that
// takes over, or this one when it has forgotten, finds the same instance by the
// table as long as the instances are the same. Fragments, packets with options or
// extension headers, ports of no service and ICMP are the stack's, but for
// "fragmentation needed", which the flow's instance gets. What this machine itself
// sends to the VIP is not balanced.
//
// The program and its maps are pinned in a BPF file system: a restart, a crash or
// an upgrade of Muster cuts nothing. Remove detaches it.
package dsr

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/musterdns/muster/lb/kernel"
)

// Limits of the program (bpf/dsr.c).
const (
	// ServicesMax limits the services.
	ServicesMax = 256
	// realsMax limits the instances of all services together. Index 0 is none.
	realsMax = 4096
	// tablesMax is more than there are services: one that moves has two for a
	// moment.
	tablesMax = 512
)

// DefaultFlowsMax is how many flows are remembered: 262,144 take 30 MB.
const DefaultFlowsMax = 262_144

// DefaultPinDir is where the program is pinned, in a directory for its network
// namespace and one in that for its interface: namespaces may share the file system.
const DefaultPinDir = "/sys/fs/bpf/muster"

// Config is what a plane needs to know.
type Config struct {
	// Interface is where clients' packets come in and where the instances are.
	// Required.
	Interface string
	// Mode is where the program is attached; 0 is Auto.
	Mode Mode
	// PinDir is a directory in a BPF file system, made if there is none; "" is
	// DefaultPinDir.
	PinDir string
	// FlowsMax is how many flows are remembered; 0 is DefaultFlowsMax. Changing
	// it forgets them.
	FlowsMax int
}

// Errors of Apply.
var (
	ErrTooManyServices  = errors.New("too many services")
	ErrTooManyInstances = errors.New("too many instances")
	ErrPort             = errors.New("direct server return cannot change the port")
)

// Plane is the data plane of one interface, of the network namespace it was made
// in; its methods must be called in that namespace. It is safe for concurrent use:
// calls wait for each other.
type Plane struct {
	config Config
	dir    string // where its program is pinned
	ifi    *net.Interface
	mode   Mode
	veth   bool // the interface is one end of a pair
	maps   objects
	link   link.Link

	mu       sync.Mutex
	services map[string]*installed // by name
	adopted  map[front]service     // that an earlier process served and Apply has not confirmed
	ids      map[name]uint32
	retired  []uint32 // indexes whose instances are gone, the longest gone first
	next     uint32   // the lowest index that was never used
	macs     map[netip.Addr]mac
	silent   map[netip.Addr]bool   // instances that Apply has waited for in vain
	held     map[netip.Addr]uint64 // VIPs: the deadlines that Hold was told
	left     []Left
}

// objects are the program and its maps.
type objects struct {
	Services *ebpf.Map     `ebpf:"services"`
	Tables   *ebpf.Map     `ebpf:"tables"`
	Reals    *ebpf.Map     `ebpf:"reals"`
	Flows    *ebpf.Map     `ebpf:"flows"`
	Counters *ebpf.Map     `ebpf:"counters"`
	Names    *ebpf.Map     `ebpf:"names"`
	XDP      *ebpf.Program `ebpf:"dsr_xdp"`
	TCX      *ebpf.Program `ebpf:"dsr_tcx"`
}

func (m *objects) close() {
	for _, c := range []interface{ Close() error }{m.Services, m.Tables, m.Reals, m.Flows, m.Counters, m.Names, m.XDP, m.TCX} {
		_ = c.Close() // what is pinned stays
	}
}

// The values of the maps, as bpf/dsr.c has them.
type (
	address [16]byte // IPv4 as ::ffff:a.b.c.d
	front   struct {
		VIP      address
		Port     [2]byte
		Protocol kernel.Protocol
		Zero     uint8
	}
	service struct {
		Deadline uint64 // 0: none
		Table    uint32
		BySource uint32
	}
	flow struct {
		Front      front
		Client     address
		ClientPort [2]byte
		Zero       [2]byte
	}
	route struct { // struct real
		MAC   mac
		State uint16
	}
	traffic struct{ Connections, Packets, Bytes uint64 }
	name    struct {
		Front    front
		Instance address
	}
	mac [6]byte
)

// stateDead makes the program treat an index as if it were in no table.
const stateDead = 1

func frontOf(s *kernel.Service) front {
	f := front{VIP: s.VIP.Addr().As16(), Protocol: s.Protocol}
	f.Port[0], f.Port[1] = byte(s.VIP.Port()>>8), byte(s.VIP.Port())
	return f
}

func nameOf(s *kernel.Service, in *kernel.Instance) name {
	return name{frontOf(s), in.Addr.Addr().As16()}
}

// New loads and attaches the program, or takes over what an earlier process left
// attached: its services go on being served, with what they knew, until Apply
// changes them. It fails where the kernel or the privileges are not enough;
// Capabilities says what to do.
func New(c Config) (*Plane, error) {
	if c.FlowsMax == 0 {
		c.FlowsMax = DefaultFlowsMax
	}
	if c.FlowsMax < 0 {
		return nil, fmt.Errorf("dsr: FlowsMax %d is negative", c.FlowsMax)
	}
	ifi, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return nil, fmt.Errorf("dsr: interface %q: %w", c.Interface, err)
	}
	pins, err := namespaceDir(c.PinDir)
	if err != nil {
		return nil, fmt.Errorf("dsr: %w", err)
	}
	p := &Plane{
		config: c, dir: filepath.Join(pins, pinName(c.Interface)), ifi: ifi, services: map[string]*installed{}, ids: map[name]uint32{},
		macs: map[netip.Addr]mac{}, silent: map[netip.Addr]bool{}, held: map[netip.Addr]uint64{}, adopted: map[front]service{}, next: 1,
	}
	if err := p.load(); err != nil {
		return nil, fmt.Errorf("dsr: %w", err)
	}
	if err := errors.Join(p.attach(), p.remember()); err != nil {
		p.maps.close()
		return nil, fmt.Errorf("dsr: interface %s: %w", c.Interface, err)
	}
	return p, nil
}

// load makes the maps, or opens those that are pinned, and loads the program.
func (p *Plane) load() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("making the directory to pin in: %w", err)
	}
	err := p.loadPinned()
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		// Another version's or another size: that one's flows are forgotten.
		if err := p.unpin(); err != nil {
			return err
		}
		err = p.loadPinned()
	}
	return err
}

func (p *Plane) loadPinned() error {
	spec, err := loadObject()
	if err != nil {
		return fmt.Errorf("reading the program: %w", err)
	}
	spec.Maps["flows"].MaxEntries = uint32(p.config.FlowsMax)
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinByName
	}
	err = spec.LoadAndAssign(&p.maps, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: p.dir}})
	if err != nil {
		return fmt.Errorf("loading the program: %w", explainError(err))
	}
	return nil
}

// unpin detaches the program and forgets its maps.
func (p *Plane) unpin() error {
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("unpinning the program: %w", err)
	}
	return nil
}

// Close ends the plane and leaves the program attached, for the next process.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.maps.close()
	return p.link.Close()
}

// Remove ends the plane and detaches the program: the VIPs are the stack's again.
func (p *Plane) Remove() error { return errors.Join(p.Close(), p.unpin()) }

// Mode is where the program is attached: never Auto.
func (p *Plane) Mode() Mode { return p.mode }

// explainError adds to what the kernel says what most often is behind it.
func explainError(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (eBPF needs CAP_BPF and CAP_NET_ADMIN)", err)
	}
	return err
}
