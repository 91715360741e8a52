package health

import (
	"fmt"
	"slices"
	"strings"
)

var (
	stateNames = []string{Unknown: "unknown", Passing: "passing", Failing: "failing"}
	typeNames  = []string{
		TypeNone: "none", TypeHTTP: "http", TypeHTTPS: "https", TypeTCP: "tcp",
		TypeGRPC: "grpc", TypeDNS: "dns", TypeTTL: "ttl", TypeHeld: "held", TypeExec: "exec",
	}
)

// String is the state's name: "unknown", "passing" or "failing".
func (s State) String() string { return nameOf(stateNames, "state", int(s)) }

// MarshalText is String; it never fails.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote, in lower case.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames, string(text))
	if i < 0 {
		return fmt.Errorf("unknown health state %q: want one of %s", text, strings.Join(stateNames, ", "))
	}
	*s = State(i)
	return nil
}

// String is the type's name as it stands in configuration: "http", "ttl"; zero
// is "none".
func (t Type) String() string { return nameOf(typeNames, "type", int(t)) }

// MarshalText is String; it never fails.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is ParseType, and "none" is TypeNone.
func (t *Type) UnmarshalText(text []byte) error {
	if string(text) == typeNames[TypeNone] {
		*t = TypeNone
		return nil
	}
	p, err := ParseType(string(text))
	if err != nil {
		return err
	}
	*t = p
	return nil
}

// ParseType reads the name of a kind of check, in lower case. TypeNone has no
// name here: a check is of some kind.
func ParseType(s string) (Type, error) {
	if i := slices.Index(typeNames, s); i > int(TypeNone) {
		return Type(i), nil
	}
	return TypeNone, fmt.Errorf("unknown check type %q: want one of %s", s, strings.Join(typeNames[1:], ", "))
}

// nameOf is the i-th name, or kind and number for a value that has none.
func nameOf(names []string, kind string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", kind, i)
}
