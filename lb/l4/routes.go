//go:build linux

package l4

import (
	"fmt"
	"strings"

	"github.com/musterdns/muster/lb/dispatch"
)

// routes finds the Backend for a name. Immutable.
type routes struct {
	fallback *dispatch.Backend // nil: none
	exact    map[string]*dispatch.Backend
	below    map[string]*dispatch.Backend // "*.example.com" by "example.com"
	acquired []*dispatch.Backend
}

// newRoutes acquires the Backends of a Config.
func newRoutes(c *Config) (*routes, error) {
	r := &routes{exact: map[string]*dispatch.Backend{}, below: map[string]*dispatch.Backend{}}
	if err := r.fill(c); err != nil {
		r.release()
		return nil, err
	}
	return r, nil
}

func (r *routes) fill(c *Config) error {
	if c.Default != (dispatch.Ref{}) {
		b, err := r.acquire(c.Dispatcher, c.Default)
		if err != nil {
			return err
		}
		r.fallback = b
	}
	for _, route := range c.Names {
		b, err := r.acquire(c.Dispatcher, route.To)
		if err != nil {
			return err
		}
		for _, name := range route.Names {
			table, key := r.exact, canonical(name)
			if below, ok := strings.CutPrefix(key, "*."); ok {
				table, key = r.below, below
			}
			if table[key] != nil {
				return fmt.Errorf("name %q is routed twice", name)
			}
			table[key] = b
		}
	}
	return nil
}

func (r *routes) acquire(d *dispatch.Dispatcher, ref dispatch.Ref) (*dispatch.Backend, error) {
	b, err := d.Acquire(ref)
	if err == nil {
		r.acquired = append(r.acquired, b)
	}
	return b, err
}

// release gives the Backends back.
func (r *routes) release() {
	for _, b := range r.acquired {
		b.Release()
	}
	r.acquired = nil
}

// canonical is a name as package clienthello gives it.
func canonical(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

// byName reports whether the choice of a Backend needs a name.
func (r *routes) byName() bool { return len(r.exact)+len(r.below) > 0 }

// find returns the Backend of a canonical name ("": none was given); nil: it is
// not routed. by is the entry that matched, for people.
func (r *routes) find(name string) (b *dispatch.Backend, by string) {
	if b := r.exact[name]; b != nil {
		return b, name
	}
	for rest := name; ; {
		_, below, ok := strings.Cut(rest, ".")
		if !ok {
			return r.fallback, "default"
		}
		if b := r.below[below]; b != nil {
			return b, "*." + below
		}
		rest = below
	}
}
