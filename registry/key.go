package registry

import (
	"net/netip"
	"strings"
)

// DefaultPrefix is where the native keys live unless configured otherwise.
const DefaultPrefix = "/muster/v1"

// prefixMax bounds a prefix; together with a key it stays under what a log
// line or a table can show.
const prefixMax = 512

// AllInstances is Key.Name of a KindAdmin record that is about every instance
// of its service.
const AllInstances = "*"

// Freeze is Key.Name of the KindAdmin record that stops health from moving the
// answers of its service, or, with AllServices as the service, of all. It is no
// label, so no instance has the name.
const Freeze = "_freeze"

// AllServices is Key.Service of a KindAdmin record about all services.
const AllServices = "*"

// The first segment of a key below the prefix, by kind.
var directories = [...]string{
	KindInstance: "instances",
	KindService:  "services",
	KindAdmin:    "admin",
	KindLoad:     "load",
	KindMember:   "members",
	KindRoute:    "routes",
	KindHealth:   "health",
}

// Subtrees of the prefix that belong to Muster and are no records of this
// package.
var otherDirectories = [...]string{"vips", "zones", "secrets"}

// String names the kind as a key's first segment does.
func (k Kind) String() string {
	if k == KindUnknown || int(k) >= len(directories) {
		return "unknown"
	}
	return directories[k]
}

// MarshalText is String, for JSON and logs.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Keyspace says how Keys are written under one prefix. Its zero value is not
// usable; it is immutable.
type Keyspace struct {
	root string // the prefix with one slash at its end
}

// NewKeyspace returns the keyspace under a prefix, which begins with a slash,
// as "/muster/v1". A slash at its end makes no difference.
func NewKeyspace(prefix string) (Keyspace, error) {
	trimmed := strings.TrimRight(prefix, "/")
	const mend = `use a path such as "/muster/v1"`
	switch {
	case !strings.HasPrefix(trimmed, "/"):
		return Keyspace{}, bad("prefix", prefix, "does not begin with a slash or names everything", mend)
	case len(trimmed) > prefixMax:
		return Keyspace{}, bad("prefix", prefix, "is longer than 512 octets", mend)
	case strings.Contains(trimmed, "//"):
		return Keyspace{}, bad("prefix", prefix, "has an empty part", mend)
	}
	if err := checkText(trimmed, prefixMax); err != nil {
		return Keyspace{}, within("prefix", err)
	}
	return Keyspace{root: trimmed + "/"}, nil
}

// Root is the prefix with one slash at its end: what every key begins with.
func (s Keyspace) Root() string { return s.root }

// Dir is what the keys of one kind begin with: "/muster/v1/instances/".
func (s Keyspace) Dir(k Kind) string { return s.root + k.String() + "/" }

// VIP is the key whose lease says who holds a virtual address. It is no record:
// Parse passes it over.
func (s Keyspace) VIP(address netip.Addr) string { return s.root + "vips/" + address.String() }

// Secret is the key of something that the servers share and nobody else needs to
// know. It is no record: Parse passes it over.
func (s Keyspace) Secret(name string) string { return s.root + "secrets/" + name }

// Raw returns the key as it is written in the source. The names are checked
// and folded, so that what Parse reads back is the same Key.
func (s Keyspace) Raw(k Key) (string, error) {
	switch k.Kind {
	case KindService:
		service, err := FoldService(k.Service)
		if err != nil {
			return "", within("service", err)
		}
		return s.Dir(k.Kind) + service, nil
	case KindInstance, KindAdmin, KindLoad:
		service, name, err := foldPair(k.Kind, k.Service, k.Name)
		if err != nil {
			return "", err
		}
		return s.Dir(k.Kind) + service + "/" + name, nil
	case KindMember, KindRoute:
		name, err := FoldService(k.Name)
		if err != nil {
			return "", within(k.Kind.noun(), err)
		}
		return s.Dir(k.Kind) + name, nil
	case KindHealth:
		service, name, err := foldPair(k.Kind, k.Service, k.Name)
		if err != nil {
			return "", err
		}
		checker, err := FoldService(k.Sub)
		if err != nil {
			return "", within("checker", err)
		}
		return s.Dir(k.Kind) + service + "/" + name + "/" + checker, nil
	case KindUnknown:
	}
	return "", &FieldError{Field: "kind", Reason: "the key has none", Mend: "set Key.Kind"}
}

// Parse returns the Key that a raw key names, folded; its Source is not set.
// ok is false when the key is none of this package's records but lies where
// Muster keeps others. An error says why a key can be no record.
func (s Keyspace) Parse(raw string) (key Key, ok bool, err error) {
	rest, found := strings.CutPrefix(raw, s.root)
	if !found {
		return Key{}, false, bad("key", raw, "is not under the prefix", "write it under "+s.root)
	}
	dir, rest, slash := strings.Cut(rest, "/")
	kind := kindOf(dir)
	switch {
	case kind == KindUnknown && slash && isOther(dir):
		return Key{}, false, nil
	case kind == KindUnknown:
		return Key{}, false, bad("key", dir, "is no kind of record", mendDirectory(dir))
	case kind == KindService || kind == KindMember || kind == KindRoute:
		name, err := FoldService(rest)
		if err != nil {
			return Key{}, false, within(kind.noun(), err)
		}
		if kind != KindService {
			return Key{Kind: kind, Name: name}, true, nil
		}
		return Key{Kind: kind, Service: name}, true, nil
	}
	service, name, two := strings.Cut(rest, "/")
	if !two {
		return Key{}, false, bad("key", rest, "names no instance", "write it as "+dir+"/<service>/<instance>")
	}
	checker := ""
	if kind == KindHealth {
		if name, checker, two = strings.Cut(name, "/"); !two {
			return Key{}, false, bad("key", rest, "names no server", "write it as "+dir+"/<service>/<instance>/<server>")
		}
		if checker, err = FoldService(checker); err != nil {
			return Key{}, false, within("checker", err)
		}
	}
	service, name, err = foldPair(kind, service, name)
	if err != nil {
		return Key{}, false, err
	}
	return Key{Kind: kind, Service: service, Name: name, Sub: checker}, true, nil
}

// foldPair checks and folds the service and the instance of a key.
func foldPair(kind Kind, service, name string) (string, string, error) {
	if kind == KindAdmin && service == AllServices && name == Freeze {
		return service, name, nil
	}
	service, err := FoldService(service)
	if err != nil {
		return "", "", within("service", err)
	}
	if kind == KindAdmin && (name == AllInstances || name == Freeze) {
		return service, name, nil
	}
	folded, err := FoldLabel(name)
	if err != nil {
		return "", "", within("instance", err)
	}
	if len(folded)+1+len(service) > nameMax {
		return "", "", bad("instance", name, "makes a name longer than 253 octets", "use a shorter name")
	}
	return service, folded, nil
}

// noun is what an error calls the name in a key of two segments.
func (k Kind) noun() string {
	switch k {
	case KindMember:
		return "member"
	case KindRoute:
		return "route"
	default:
		return "service"
	}
}

func kindOf(dir string) Kind {
	for k, d := range directories {
		if d == dir && d != "" {
			return Kind(k)
		}
	}
	return KindUnknown
}

func isOther(dir string) bool {
	for _, d := range otherDirectories {
		if d == dir {
			return true
		}
	}
	return false
}

// mendDirectory says which first segments there are, the nearest alone when
// one is near.
func mendDirectory(dir string) string {
	folded := strings.TrimSuffix(lower(dir), "s")
	for _, d := range directories {
		if d != "" && strings.TrimSuffix(d, "s") == folded {
			return `did you mean "` + d + `"?`
		}
	}
	return "use " + strings.Join(directories[KindInstance:], ", ")
}
