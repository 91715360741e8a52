package config

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Setting is the effective value of one key.
type Setting struct {
	Key    string
	Origin Origin

	node  *yaml.Node
	shape shape
	keys  []key
}

// Value is the value as JSON has it: a string, number, bool, list or map.
// Durations, addresses and the like are strings as they were written.
func (s Setting) Value() any {
	return s.value(s.node)
}

func (s Setting) value(n *yaml.Node) any {
	n = resolve(n)
	switch n.Kind {
	case yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, e := range n.Content {
			out[i] = s.value(e)
		}
		return out
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			out[n.Content[i].Value] = s.value(n.Content[i+1])
		}
		return out
	}
	var v any
	if s.Origin.Line == 0 && s.Origin.Source != "" || n.Decode(&v) != nil {
		return n.Value // of the environment or a flag: text
	}
	return v
}

// Settings are the effective values of all keys, in the order of the
// reference. What was computed (the host's name, paths) stands as computed.
func (c *Config) Settings() []Setting { return c.settings }

// View is the effective configuration as YAML, with the origin of every value
// in a comment. It can be read back.
func (c *Config) View() string {
	var b strings.Builder
	var open []string // sections that the last line stood in
	for _, s := range c.settings {
		parts := strings.Split(s.Key, ".")
		sections, name := parts[:len(parts)-1], parts[len(parts)-1]
		common := 0
		for common < len(sections) && common < len(open) && sections[common] == open[common] {
			common++
		}
		for i := common; i < len(sections); i++ {
			fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", i), sections[i])
		}
		open = sections
		s.write(&b, name, strings.Repeat("  ", len(sections)))
	}
	return b.String()
}

func (s Setting) write(b *strings.Builder, name, indent string) {
	n := resolve(s.node)
	if s.shape != objects || len(n.Content) == 0 {
		fmt.Fprintf(b, "%s%s: %s # %s\n", indent, name, flow(n), s.Origin)
		return
	}
	fmt.Fprintf(b, "%s%s: # %s\n", indent, name, s.Origin)
	for _, e := range n.Content {
		fmt.Fprintf(b, "%s  - %s\n", indent, flow(resolve(e)))
	}
}

// flow is a node in YAML's one-line form.
func flow(n *yaml.Node) string {
	n = resolve(n)
	switch n.Kind {
	case yaml.SequenceNode:
		parts := make([]string, len(n.Content))
		for i, e := range n.Content {
			parts[i] = flow(e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case yaml.MappingNode:
		var parts []string
		for i := 0; i+1 < len(n.Content); i += 2 {
			parts = append(parts, n.Content[i].Value+": "+flow(n.Content[i+1]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return plain(n.Value)
}

// plain is a scalar as YAML reads it back in one-line form: quoted unless it
// is plainly a word or number.
func plain(s string) string {
	safe := s != ""
	for i, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '/' || c == '.'
		inner := i > 0 && strings.IndexByte("-_:", c) >= 0 && i < len(s)-1
		safe = safe && (letter || inner)
	}
	if safe && !strings.EqualFold(s, "null") {
		return s
	}
	return fmt.Sprintf("%q", s)
}
