package pool

import (
	"maps"
	"slices"

	"github.com/musterdns/muster/registry"
)

// ListingMax is how many services of one port, and how many ports of one source,
// are listed: more than a list to browse can hold.
const ListingMax = 256

// portNameMax is the greatest size of a port's name, which is a label.
const portNameMax = 63

// Listing is what some services have in common, for those who browse: the names
// of the ports of a source's services, or the services that have one of them.
// Immutable.
type Listing struct {
	hash   uint64
	origin *SourceView
	of     string
	names  []string
}

func (l *Listing) key() (uint64, uint16, string) { return l.hash, uint16(l.origin.id), l.of }

// Origin is the state of the source whose services are listed.
func (l *Listing) Origin() *SourceView { return l.origin }

// Port is the port whose services are listed.
func (l *Listing) Port() (name string, udp bool) { return SplitPort(l.of) }

// Service is the n-th service as it is now; nil: it has gone meanwhile.
func (l *Listing) Service(n int) *Service {
	var buf [255]byte
	return l.origin.view.Find(l.origin.id, buf[:copy(buf[:], l.names[n])])
}

// Len is the number of entries, and At the n-th of them; they are sorted.
func (l *Listing) Len() int { return len(l.names) }

// At returns the n-th entry: a service's name as Service.Wire has it, or what
// SplitPort takes.
func (l *Listing) At(n int) string { return l.names[n] }

// SplitPort splits an entry of View.Ports.
func SplitPort(entry string) (name string, udp bool) { return entry[1:], entry[0] == protoUDP }

// Ports lists the named ports that services of a source have; nil: none has.
func (v *View) Ports(source registry.SourceID) *Listing { return v.listing(uint16(source), nil) }

// PortServices lists the services of a source with a port of a name; nil: there
// are none.
func (v *View) PortServices(source registry.SourceID, name []byte, udp bool) *Listing {
	var buf [1 + portNameMax]byte
	if len(name) > portNameMax {
		return nil
	}
	buf[0] = protoTCP
	if udp {
		buf[0] = protoUDP
	}
	return v.listing(uint16(source), buf[:1+copy(buf[1:], name)])
}

func (v *View) listing(space uint16, of []byte) *Listing {
	return v.listings.get(hashKey(v.seed, space, of), space, of)
}

// listingKey is the key of a listing: of a source's ports, or of the services
// of one.
type listingKey struct {
	origin *SourceView
	of     string
}

// listed is the writer's side of a listing. A name beyond ListingMax waits until
// one before it goes.
type listed struct {
	names   map[string]struct{} // shown
	waiting map[string]struct{}
}

// listings is the writer's side of all.
type listings struct {
	view    *View
	byKey   map[listingKey]*listed
	changed map[listingKey]struct{}
}

func (x *listings) init(v *View) {
	x.view = v
	x.byKey = map[listingKey]*listed{}
	x.changed = map[listingKey]struct{}{}
}

// replace notes that a service has another form; nil: none.
func (x *listings) replace(prev, next *Service) {
	a, b := portsOf(prev), portsOf(next)
	for len(a)+len(b) > 0 {
		switch c := comparePorts(a, b); {
		case c < 0:
			x.remove(prev, &a[0].filter)
			a = a[1:]
		case c > 0:
			x.add(next, &b[0].filter)
			b = b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
}

// portsOf is the sets of a service's ports, which come first.
func portsOf(s *Service) []Set {
	if s == nil {
		return nil
	}
	n := 0
	for n < len(s.filters) && s.filters[n].filter.kind == FilterPort {
		n++
	}
	return s.filters[:n]
}

// comparePorts orders the first of each; none comes last.
func comparePorts(a, b []Set) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	f := &b[0].filter
	return a[0].filter.compare(f.kind, f.proto, []byte(f.name))
}

func (x *listings) add(s *Service, port *filter) {
	k := listingKey{s.origin, portEntry(port)}
	l := x.byKey[k]
	if l == nil {
		x.insert(listingKey{origin: k.origin}, k.of)
	}
	x.insert(k, s.Wire())
}

func (x *listings) insert(k listingKey, name string) {
	l := x.byKey[k]
	if l == nil {
		l = &listed{names: map[string]struct{}{}, waiting: map[string]struct{}{}}
		x.byKey[k] = l
	}
	if len(l.names) == ListingMax {
		l.waiting[name] = struct{}{}
		return
	}
	l.names[name] = struct{}{}
	x.changed[k] = struct{}{}
}

func (x *listings) remove(s *Service, port *filter) {
	k := listingKey{s.origin, portEntry(port)}
	if x.drop(k, s.Wire()) {
		x.drop(listingKey{origin: k.origin}, k.of)
	}
}

// drop takes a name out and reports whether it was the last.
func (x *listings) drop(k listingKey, name string) bool {
	l := x.byKey[k]
	if _, waits := l.waiting[name]; waits {
		delete(l.waiting, name)
		return false
	}
	delete(l.names, name)
	x.changed[k] = struct{}{}
	for next := range l.waiting {
		delete(l.waiting, next)
		l.names[next] = struct{}{}
		break
	}
	if len(l.names) == 0 {
		delete(x.byKey, k)
	}
	return len(l.names) == 0
}

// portEntry is a port as SplitPort takes it.
func portEntry(f *filter) string { return string([]byte{f.proto}) + f.name }

// publish shows what has changed: O(ListingMax) for each.
func (x *listings) publish(c *counters) {
	for k := range x.changed {
		next := &Listing{hash: hashKey(x.view.seed, uint16(k.origin.id), []byte(k.of)), origin: k.origin, of: k.of}
		if l := x.byKey[k]; l == nil {
			x.view.listings.remove(next)
		} else {
			c.listingsOmitted.Add(uint64(min(len(l.waiting), 1)))
			next.names = slices.Sorted(maps.Keys(l.names))
			x.view.listings.put(next)
		}
	}
	clear(x.changed)
}
