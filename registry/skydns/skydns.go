// Package skydns reads SkyDNS messages: what CoreDNS's etcd plugin answers and what
// external-dns and registrator write.
//
//	<prefix>/local/skydns/prod/web/1   {"host":"10.0.0.5","port":8080,"ttl":30}
//
// is a record of 1.web.prod.skydns.local., and is answered for every name above it in
// the zone too. Fields: host, port, priority, weight, text, mail, ttl, targetstrip and
// group; others are of no matter.
//
// A record with an address, a port, and two labels or more below the zone, which are
// those that services and instances may have, is an instance as well: 1 of the service
// web.prod, which is checked and drained like any other, and left out of answers then.
package skydns

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/musterdns/muster/registry"
)

// Format is the records of one zone. It is immutable.
type Format struct{ root string }

// New returns the format of a zone's keys, which begin with a prefix and the zone's labels
// from the top, as "/skydns/local/skydns".
func New(prefix string) (*Format, error) {
	space, err := registry.NewKeyspace(prefix)
	if err != nil {
		return nil, err
	}
	return &Format{root: space.Root()}, nil
}

// Root is what every key begins with, a slash at its end.
func (f *Format) Root() string { return f.root }

// What bounds a record.
const (
	labelMax     = 63 // RFC 1035 section 2.3.4
	pathMax      = 200
	priorityNone = 10  // what 0 means, and cannot be said
	weightNone   = 100 // likewise
	valueMax     = registry.ValueMax
)

// Parse returns the key of a record: its path stands as the service's name. Upper case
// is refused, since no question finds it.
func (f *Format) Parse(raw string) (registry.Key, bool, error) {
	path, ok := strings.CutPrefix(raw, f.root)
	if !ok || path == "" {
		return registry.Key{}, false, problem("key", "is not below the zone's prefix", "write it below "+f.root)
	}
	if len(path) > pathMax {
		return registry.Key{}, false, problem("key", "is too long for a name", fmt.Sprintf("use %d octets at most below the zone", pathMax))
	}
	for label := range strings.SplitSeq(path, "/") {
		switch {
		case label == "" || len(label) > labelMax:
			return registry.Key{}, false, problem("key", "has a part that is no label", "use 1 to 63 octets between slashes")
		case strings.ToLower(label) != label:
			return registry.Key{}, false, problem("key", "has upper case", "write it in lower case: a question's case is of no matter")
		}
	}
	return registry.Key{Kind: registry.KindService, Service: path}, true, nil
}

// Record is a SkyDNS message. It is not to be written to.
type Record struct {
	Path     string     // below the zone, from the top: "prod/web/1"
	Host     string     // an address or a name; empty: none
	Addr     netip.Addr // Host, if it is an address
	Port     int        // -1: no SRV record
	Priority uint16
	Weight   uint16
	Text     string
	Mail     bool
	TTL      uint32 // seconds, 31 bits (RFC 2181 section 8); 0: the zone's
	Strip    int    // how many labels of the record's name its target does without
	Group    string
}

// message is a value.
type message struct {
	Host        string `json:"host"`
	Port        int    `json:"port"`
	Priority    int    `json:"priority"`
	Weight      int    `json:"weight"`
	Text        string `json:"text"`
	Mail        bool   `json:"mail"`
	TTL         uint32 `json:"ttl"`
	TargetStrip int    `json:"targetstrip"`
	Group       string `json:"group"`
}

// Note decodes the value of a key that Parse takes: a *Record.
func (f *Format) Note(raw string, value []byte) (any, error) {
	r, err := Decode(strings.TrimPrefix(raw, f.root), value)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Encode is the record as a message, which Decode reads.
func (r *Record) Encode() ([]byte, error) {
	return json.Marshal(message{
		Host: r.Host, Port: r.Port, Priority: int(r.Priority), Weight: int(r.Weight), Text: r.Text,
		Mail: r.Mail, TTL: r.TTL, TargetStrip: r.Strip, Group: r.Group,
	})
}

// Decode decodes the message of a path.
func Decode(path string, value []byte) (*Record, error) {
	const mend = `write {"host":"10.0.0.5","port":8080}`
	if len(value) > valueMax {
		return nil, problem("", fmt.Sprintf("the value has %d bytes, more than %d", len(value), valueMax), "write less")
	}
	var m message
	if err := json.Unmarshal(value, &m); err != nil {
		return nil, problem("", "is no SkyDNS message: "+err.Error(), mend)
	}
	r := &Record{
		Path: path, Host: strings.ToLower(strings.TrimSuffix(m.Host, ".")), Port: m.Port,
		Text: m.Text, Mail: m.Mail, TTL: min(m.TTL, math.MaxInt32), Strip: m.TargetStrip, Group: m.Group,
	}
	switch {
	case m.Host == "" && m.Text == "":
		return nil, problem("host", "is missing, and text too", mend)
	case m.Port < -1 || m.Port > math.MaxUint16:
		return nil, problem("port", "is no port", "use 1 to 65535, or -1 for a record without SRV")
	case m.Priority < 0 || m.Priority > math.MaxUint16:
		return nil, problem("priority", "is out of range", "use 0 to 65535")
	case m.Weight < 0 || m.Weight > math.MaxUint16:
		return nil, problem("weight", "is out of range", "use 0 to 65535")
	case m.TargetStrip < 0:
		return nil, problem("targetstrip", "is negative", "leave it out")
	}
	r.Priority, r.Weight = uint16(m.Priority), uint16(m.Weight)
	if r.Priority == 0 {
		r.Priority = priorityNone
	}
	if r.Weight == 0 {
		r.Weight = weightNone
	}
	if a, err := netip.ParseAddr(r.Host); err == nil {
		r.Addr = a.Unmap()
		if r.Addr.Zone() != "" || r.Addr.IsUnspecified() {
			return nil, problem("host", "is no address of a host", mend)
		}
	} else if r.Host != "" && !hostName(r.Host) {
		return nil, problem("host", "is neither an address nor a name", mend)
	}
	return r, nil
}

// hostName reports whether a text can be a name of DNS.
func hostName(text string) bool {
	if len(text) > 253 || strings.ContainsAny(text, " \\\"()@;\t\r\n\x00") {
		return false
	}
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > labelMax {
			return false
		}
	}
	return true
}

// Instance is the record as an instance, if it is one.
func (r *Record) Instance() (in registry.Instance, ok bool) {
	if !r.Addr.IsValid() || r.Port < 1 {
		return in, false
	}
	key, ok := instanceKey(r.Path)
	if !ok {
		return in, false
	}
	return registry.Instance{
		Service: key.Service, ID: key.Name, Addresses: []netip.Addr{r.Addr}, Port: uint16(r.Port), Weight: r.Weight,
		TTL: min(time.Duration(r.TTL)*time.Second, registry.TTLMax),
	}, true
}

// instanceKey is the instance that a path may stand for.
func instanceKey(path string) (registry.Key, bool) {
	labels := strings.Split(path, "/")
	slices.Reverse(labels)
	if len(labels) < 2 {
		return registry.Key{}, false
	}
	service, id := strings.Join(labels[1:], "."), labels[0]
	if folded, err := registry.FoldService(service); err != nil || folded != service {
		return registry.Key{}, false
	}
	if folded, err := registry.FoldLabel(id); err != nil || folded != id {
		return registry.Key{}, false
	}
	return registry.Key{Kind: registry.KindInstance, Service: service, Name: id}, true
}

// Watch returns a watcher of the instances among the notes that w delivers, each batch
// of which tree has first.
func Watch(w registry.Watcher, tree func(registry.Batch)) registry.Watcher { return &watcher{w, tree} }

type watcher struct {
	registry.Watcher

	tree func(registry.Batch)
}

// Watch implements registry.Watcher.
func (w *watcher) Watch(ctx context.Context, sink func(registry.Batch) error) error {
	return w.Watcher.Watch(ctx, func(b registry.Batch) error {
		w.tree(b)
		deleted, lost := b.Deleted, b.Lost
		b.Deleted, b.Lost = nil, nil
		gone := func(path string) {
			if key, ok := instanceKey(path); ok && !b.Reset && !b.More {
				key.Source = b.Source
				b.Deleted = append(b.Deleted, key)
			}
		}
		for _, k := range deleted {
			gone(k.Service)
		}
		for _, k := range lost {
			if key, ok := instanceKey(k.Service); ok {
				key.Source = b.Source
				b.Lost = append(b.Lost, key)
			}
		}
		for i := range b.Notes {
			n := &b.Notes[i]
			r, ok := n.Value.(*Record)
			if !ok {
				continue
			}
			in, ok := r.Instance()
			if !ok {
				gone(r.Path) // it may have been one
				continue
			}
			in.Incarnation, in.Revision, in.Leased = n.Incarnation, n.Revision, n.Leased
			b.Instances = append(b.Instances, in)
		}
		b.Notes = nil
		return sink(b)
	})
}

func problem(field, reason, mend string) error {
	return &registry.FieldError{Field: field, Reason: reason, Mend: mend}
}
