// Package naming reads what etcd's gRPC naming writes (client/v3/naming/endpoints),
// so that services registered for gRPC clients are answered by DNS too:
//
//	<prefix>/<target>/<key>   {"Op":0,"Addr":"10.0.0.5:8080","Metadata":...}
//
// is an instance of the service that target names; team/web is web.team. Its id is
// the key's last part if that is a label in lower case, and else i and eight
// hexadecimal digits of its hash, the original being in its metadata as "key".
// Metadata that is an object may have weight, priority, region, zone and tags, as
// the native record does; any other is of no matter.
//
// Addr must hold an IP address: a name has no place in an answer of addresses.
package naming

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/musterdns/muster/registry"
)

// Format is the records under one prefix. It is immutable.
type Format struct{ root string }

// New returns the format of the keys below a prefix, as "/services".
func New(prefix string) (*Format, error) {
	space, err := registry.NewKeyspace(prefix)
	if err != nil {
		return nil, err
	}
	return &Format{root: space.Root()}, nil
}

// Root is what every key begins with, a slash at its end.
func (f *Format) Root() string { return f.root }

// Parse returns the instance that a key names.
func (f *Format) Parse(raw string) (registry.Key, bool, error) {
	rest, ok := strings.CutPrefix(raw, f.root)
	if !ok {
		return registry.Key{}, false, problem("key", "is not under the prefix", "write it under "+f.root)
	}
	at := strings.LastIndexByte(rest, '/')
	if at < 0 || at == len(rest)-1 {
		return registry.Key{}, false, problem("key", "names no endpoint of a target", "write it as "+f.root+"<target>/<address>")
	}
	parts := strings.Split(rest[:at], "/")
	slices.Reverse(parts)
	name := strings.Join(parts, ".")
	service, err := registry.FoldService(name)
	if err != nil {
		return registry.Key{}, false, problem("target", "is not a name of DNS labels", "use letters, digits and hyphens between slashes")
	}
	if service != name {
		return registry.Key{}, false, problem("target", "has upper case", "write it in lower case: a question's case is of no matter, and two targets would be one")
	}
	id, _ := label(rest[at+1:])
	return registry.Key{Kind: registry.KindInstance, Service: service, Name: id}, true, nil
}

// taken is what label makes: a key's own part of that form is not to be taken for
// one that was made.
var taken = regexp.MustCompile(`^i[0-9a-f]{8}$`)

// label is the id of the instance with a key's last part, and whether that was
// made.
func label(part string) (id string, made bool) {
	if folded, err := registry.FoldLabel(part); err == nil && folded == part && !taken.MatchString(part) {
		return part, false
	}
	sum := sha256.Sum256([]byte(part))
	return fmt.Sprintf("i%x", sum[:4]), true
}

// update is the value of a key.
type update struct {
	Op       int
	Addr     string
	Metadata json.RawMessage
}

// metadata is what Muster knows of an update's metadata.
type metadata struct {
	Weight   json.RawMessage `json:"weight,omitempty"`
	Priority json.RawMessage `json:"priority,omitempty"`
	Region   json.RawMessage `json:"region,omitempty"`
	Zone     json.RawMessage `json:"zone,omitempty"`
	Tags     json.RawMessage `json:"tags,omitempty"`
}

// native is an update as a native record, which has the checks of fields.
type native struct {
	Address string      `json:"address"`
	Port    json.Number `json:"port,omitempty"`
	metadata
	Meta map[string]string `json:"meta,omitempty"`
}

// Instance decodes the value of a key that Parse takes.
func (f *Format) Instance(raw string, value []byte) (registry.Instance, error) {
	const mend = `write {"Op":0,"Addr":"10.0.0.5:8080"}`
	key, _, err := f.Parse(raw)
	if err != nil {
		return registry.Instance{}, err
	}
	if len(value) > registry.ValueMax {
		return registry.Instance{}, problem("", fmt.Sprintf("the value has %d bytes, more than %d", len(value), registry.ValueMax), "write less")
	}
	var u update
	if err := json.Unmarshal(value, &u); err != nil {
		return registry.Instance{}, problem("", "is no update of an endpoint: "+err.Error(), mend)
	}
	if u.Op != 0 {
		return registry.Instance{}, problem("Op", "is not 0", "a key that is there is an endpoint that was added; delete the key")
	}
	host, port, err := net.SplitHostPort(u.Addr)
	if err != nil {
		return registry.Instance{}, problem("Addr", "is no address with a port", mend)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return registry.Instance{}, problem("Addr", "its port is no number", mend)
	}
	n := native{Address: host, Port: json.Number(port)}
	if bytes.HasPrefix(bytes.TrimSpace(u.Metadata), []byte("{")) {
		if err := json.Unmarshal(u.Metadata, &n.metadata); err != nil {
			return registry.Instance{}, problem("Metadata", "is not JSON: "+err.Error(), mend)
		}
	}
	part := raw[strings.LastIndexByte(raw, '/')+1:]
	if _, made := label(part); made {
		n.Meta = map[string]string{"key": part}
	}
	text, err := json.Marshal(n)
	if err != nil {
		return registry.Instance{}, problem("Metadata", err.Error(), mend)
	}
	return registry.DecodeInstance(key.Service, key.Name, text)
}

func problem(field, reason, mend string) error {
	return &registry.FieldError{Field: field, Reason: reason, Mend: mend}
}
