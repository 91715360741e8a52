package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder reads one configuration and gathers its problems.
type decoder struct {
	file      string // as named to the user; empty: none
	base      string // the file's directory, absolute
	problems  Problems
	where     map[string]Origin // of every value that was read
	effective []Setting
	choose    func(leaf) (*yaml.Node, Origin) // what wins for a key
	throwaway bool                            // Options.Throwaway

	source string // of the node being decoded; empty: the table's default
	cwd    string // where relative paths outside the file begin
	seen   int    // values read, aliases each time they are used
}

// valuesMax bounds the values of one configuration: aliases of aliases make a
// short file long.
const valuesMax = 500_000

func (d *decoder) add(p Problem) { d.problems = append(d.problems, p) }

// problem adds a problem at a node.
func (d *decoder) problem(n *yaml.Node, path, reason, mend string) {
	d.add(Problem{Origin: d.at(n), Key: path, Reason: reason, Mend: mend})
}

// at is where a node stands.
func (d *decoder) at(n *yaml.Node) Origin {
	if d.source == "" {
		return Origin{}
	}
	return Origin{Source: d.source, Line: n.Line, Col: n.Column}
}

// parse returns the root mapping of a file, or nil for an empty one.
func (d *decoder) parse(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) {
			d.syntax(data, err)
		}
		return nil
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		d.problem(&second, "", "a second document begins here", "keep one")
	case !errors.Is(err, io.EOF):
		d.syntax(data, err)
	}
	root := resolve(doc.Content[0])
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		d.problem(root, "", "must be keys and values, not "+kindName(root), "see `muster config reference`")
		return nil
	}
	return root
}

// settings makes viper's map of a mapping of the file: sections become maps,
// every other value stays the node that it is, so that it keeps its place.
func (d *decoder) settings(n *yaml.Node, keys []key, path string) map[string]any {
	out := map[string]any{}
	for name, value := range d.pairs(n, keys, path) {
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		k, below := keys[i], join(path, name)
		switch {
		case k.shape != section:
			out[name] = value
		case value.Kind == yaml.MappingNode:
			out[name] = d.settings(value, k.keys, below)
		case value.ShortTag() != "!!null":
			d.problem(value, below, "must have keys below it, not "+kindName(value), "")
		}
	}
	return out
}

// pairs yields the known keys of a mapping with their values, and adds
// problems for the others.
func (d *decoder) pairs(n *yaml.Node, keys []key, path string) func(func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		first := map[string]*yaml.Node{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := resolve(n.Content[i])
			at := join(path, cut(k.Value))
			switch {
			case k.Kind != yaml.ScalarNode:
				d.problem(n.Content[i], path, "a key must be a word, not "+kindName(k), "")
			case k.ShortTag() == "!!merge":
				d.problem(k, path, "merge keys (<<) are not read", "write the keys out")
			case first[k.Value] != nil:
				d.problem(k, at, fmt.Sprintf("is there twice, first in line %d", first[k.Value].Line), "keep one")
			case !slices.ContainsFunc(keys, func(c key) bool { return c.name == k.Value }):
				first[k.Value] = k
				d.problem(k, at, "unknown key", suggestKey(k.Value, path, keys))
			default:
				first[k.Value] = k
				if !yield(k.Value, resolve(n.Content[i+1])) {
					return
				}
			}
		}
	}
}

// suggestKey says which key may have been meant: one near in spelling here, or
// the same word elsewhere.
func suggestKey(word, path string, here []key) string {
	names := make([]string, len(here))
	for i, k := range here {
		names[i] = k.name
	}
	if hint := Suggest(strings.ToLower(word), names); hint != "" {
		return hint
	}
	for _, l := range leaves(keys(), "") {
		if l.name == word && path != strings.TrimSuffix(l.path, "."+word) {
			return fmt.Sprintf("did you mean %q?", l.path)
		}
	}
	return "known here: " + strings.Join(names, ", ")
}

// sectionOf decodes what wins for each of the keys into the struct that parent
// points to.
func (d *decoder) sectionOf(keys []key, path string, parent any) {
	for _, k := range keys {
		below := join(path, k.name)
		if k.shape == section {
			k.decode(d, nil, below, parent)
			continue
		}
		n, o := d.choose(leaf{key: k, path: below})
		if n == nil {
			continue // its problem is known
		}
		d.source = o.Source
		n = resolve(n)
		d.where[below] = o
		d.effective = append(d.effective, Setting{Key: below, Origin: o, node: n, shape: k.shape, keys: k.keys})
		k.decode(d, n, below, parent)
		d.source = d.file
	}
}

// object decodes an element of a list of mappings.
func (d *decoder) object(n *yaml.Node, path string, keys []key, parent any) {
	n = resolve(n)
	if d.tooMany(n, path) {
		return
	}
	d.where[path] = d.at(n)
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "must be keys and values, not "+kindName(n), "write it as {"+keys[0].name+": ...}")
		return
	}
	given := map[string]bool{}
	for name, value := range d.pairs(n, keys, path) {
		given[name] = true
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		keys[i].decode(d, value, join(path, name), parent)
	}
	for _, k := range keys {
		switch {
		case given[k.name]:
		case k.required:
			d.problem(n, path, k.name+" is missing", "")
		case k.def != "":
			k.decode(d, defaultNode(k.def), join(path, k.name), parent)
			d.where[join(path, k.name)] = d.at(n)
		}
	}
}

// isList reports whether a node is a list, and adds a problem when it is not.
func (d *decoder) isList(n *yaml.Node, path, example string) bool {
	d.where[path] = d.at(n)
	if n.Kind == yaml.SequenceNode {
		return true
	}
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		d.problem(n, path, "must be a list, not "+kindName(n), "")
		return false
	}
	d.problem(n, path, quote(n.Value)+": must be a list", "write "+cut(example))
	return false
}

// tooMany counts a value, and says once when there are more than can be.
func (d *decoder) tooMany(n *yaml.Node, path string) bool {
	d.seen++
	if d.seen == valuesMax+1 {
		d.problem(n, path, fmt.Sprintf("more than %d values", valuesMax), "")
	}
	return d.seen > valuesMax
}

func decodeScalar[T any](d *decoder, n *yaml.Node, path string, v value[T]) (T, bool) {
	var zero T
	n = resolve(n)
	d.where[path] = d.at(n)
	if d.tooMany(n, path) {
		return zero, false
	}
	if n.Kind != yaml.ScalarNode {
		d.problem(n, path, "must be "+v.noun+", not "+kindName(n), "")
		return zero, false
	}
	if n.ShortTag() == "!!null" {
		d.problem(n, path, "has no value", "leave the key out for the default")
		return zero, false
	}
	x, err := v.parse(n.Value)
	if err != nil {
		d.problem(n, path, quote(n.Value)+": "+err.Error(), "")
		return zero, false
	}
	if v.resolve != nil {
		base := d.cwd
		if d.source != "" && d.source == d.file {
			base = d.base
		}
		x = v.resolve(base, x)
	}
	return x, true
}

// resolve follows aliases. An alias of an alias cannot be written, so that one
// step is all there is.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.ShortTag() == "!!null" {
			return "nothing"
		}
		return "a single value"
	}
	return "this"
}

// quotedMax bounds what a problem repeats of a value.
const quotedMax = 80

func cut(s string) string {
	if len(s) > quotedMax {
		s = s[:quotedMax] + "..."
	}
	q := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func quote(s string) string { return `"` + cut(s) + `"` }

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
