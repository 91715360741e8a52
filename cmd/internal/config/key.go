package config

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// shape is what a key holds.
type shape uint8

const (
	scalar  shape = iota
	list          // of scalars
	section       // further keys
	objects       // a list of mappings with further keys
	mapping       // one mapping with further keys (within objects)
	pairs         // a mapping of the file's own words (within objects)
)

// key is one key of the configuration.
type key struct {
	name  string
	doc   string // sentences; the first is the flag's help
	shape shape
	def   string // the default as YAML; empty: none (within objects), or see computed
	noun  string // of a scalar, or of a list's elements
	// computed says what the default is made of, where it is not the same
	// everywhere.
	computed string
	limits   string
	required bool // within objects
	schema   map[string]any
	keys     []key
	// decode reads a node into the field of parent, a pointer to the struct
	// that the key's section is.
	decode func(d *decoder, n *yaml.Node, path string, parent any)
}

// one is a key with a scalar.
func one[P, T any](name, def, doc string, v value[T], set func(*P, T)) key {
	return key{
		name: name, doc: doc, def: def, shape: scalar, noun: v.noun, limits: v.limits, schema: v.schema,
		decode: func(d *decoder, n *yaml.Node, path string, parent any) {
			if x, ok := decodeScalar(d, n, path, v); ok {
				set(parent.(*P), x)
			}
		},
	}
}

// many is a key with a list of scalars.
func many[P, T any](name, def, doc string, v value[T], set func(*P, []T)) key {
	return key{
		name: name, doc: doc, def: def, shape: list, noun: v.noun, limits: v.limits, schema: v.schema,
		decode: func(d *decoder, n *yaml.Node, path string, parent any) {
			if !d.isList(n, path, "["+n.Value+"]") {
				return
			}
			xs := make([]T, 0, len(n.Content))
			for i, e := range n.Content {
				if x, ok := decodeScalar(d, e, index(path, i), v); ok {
					xs = append(xs, x)
				}
			}
			set(parent.(*P), xs)
		},
	}
}

// under is a key with further keys.
func under[P, T any](name, doc string, at func(*P) *T, keys ...key) key {
	return key{
		name: name, doc: doc, shape: section, keys: keys,
		decode: func(d *decoder, _ *yaml.Node, path string, parent any) {
			d.sectionOf(keys, path, at(parent.(*P)))
		},
	}
}

// each is a key with a list of mappings.
func each[P, T any](name, def, doc string, set func(*P, []T), keys ...key) key {
	return key{
		name: name, doc: doc, def: def, shape: objects, keys: keys,
		decode: func(d *decoder, n *yaml.Node, path string, parent any) {
			if !d.isList(n, path, "- name: ...") {
				return
			}
			xs := make([]T, len(n.Content))
			for i, e := range n.Content {
				d.object(e, index(path, i), keys, &xs[i])
			}
			set(parent.(*P), xs)
		},
	}
}

// part is a key of objects that holds one mapping.
func part[P, T any](name, doc string, set func(*P, T), keys ...key) key {
	return key{
		name: name, doc: doc, shape: mapping, keys: keys,
		decode: func(d *decoder, n *yaml.Node, path string, parent any) {
			var x T
			d.object(n, path, keys, &x)
			set(parent.(*P), x)
		},
	}
}

// named is a key of objects that holds a mapping of words, from names that the
// file chooses.
func named[P any](name, doc string, v value[string], set func(*P, map[string]string)) key {
	return key{
		name: name, doc: doc, shape: pairs, noun: v.noun, schema: v.schema,
		decode: func(d *decoder, n *yaml.Node, path string, parent any) {
			if n.Kind != yaml.MappingNode {
				d.problem(n, path, "must be names and values, not "+kindName(n), "write it as {NAME: VALUE}")
				return
			}
			words := map[string]string{}
			for i := 0; i+1 < len(n.Content); i += 2 {
				k := resolve(n.Content[i])
				at := join(path, cut(k.Value))
				if _, twice := words[k.Value]; twice || k.Kind != yaml.ScalarNode {
					d.problem(k, at, "must be a name that stands once", "")
					continue
				}
				if x, ok := decodeScalar(d, n.Content[i+1], at, v); ok {
					words[k.Value] = x
				}
			}
			set(parent.(*P), words)
		},
	}
}

// must marks a key of objects as required.
func must(k key) key {
	k.required = true
	return k
}

// from says what the default is computed of.
func (k key) from(what string) key {
	k.computed = what
	return k
}

// leaf is a key that file, environment and flags can set, with its path.
type leaf struct {
	key
	path string // "dns.listen"
}

// env is the name of the leaf's environment variable.
func (l leaf) env() string {
	return EnvPrefix + "_" + strings.ToUpper(strings.ReplaceAll(l.path, ".", "_"))
}

// flag is the name of the leaf's flag.
func (l leaf) flag() string { return strings.NewReplacer(".", "-", "_", "-").Replace(l.path) }

// leaves returns the keys that are not sections, in order.
func leaves(keys []key, under string) []leaf {
	var out []leaf
	for _, k := range keys {
		path := join(under, k.name)
		if k.shape == section {
			out = append(out, leaves(k.keys, path)...)
			continue
		}
		out = append(out, leaf{key: k, path: path})
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
