package config

import (
	"fmt"
	"slices"
	"strings"
)

// Origin says where a value came from. Zero is the default.
type Origin struct {
	// Source is a file, "MUSTER_NODE" or "--node"; empty: the default.
	Source string
	// Line and Col count from 1 within a file; 0: not in a file.
	Line, Col int
}

// String is "muster.yaml:3:5", "MUSTER_NODE", "--node" or "default".
func (o Origin) String() string {
	switch {
	case o.Source == "":
		return "default"
	case o.Line == 0:
		return o.Source
	}
	return fmt.Sprintf("%s:%d:%d", o.Source, o.Line, o.Col)
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Origin Origin
	Key    string // "zones[1].ttl"; empty: the file as a whole
	Reason string // what is wrong, with the value
	Mend   string // what to do about it; may be empty
	// Warning is set when the configuration can be used all the same.
	Warning bool
}

// String is one line: place, key, reason and mend.
func (p Problem) String() string {
	var b strings.Builder
	if p.Origin != (Origin{}) {
		b.WriteString(p.Origin.String() + ": ")
	}
	if p.Warning {
		b.WriteString("warning: ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Reason)
	if p.Mend != "" {
		b.WriteString(": " + p.Mend)
	}
	return b.String()
}

// Problems is what is wrong with a configuration, in the order of the file.
type Problems []Problem

// leansOn says which parts of a configuration others are checked against.
var leansOn = map[string][]string{
	"zones":    {"access"},
	"services": {"zones", "health"},
	"access":   {"zones", "forward"},
	"dns":      {"admin", "registry"},
	"admin":    {"dns", "registry"},
	"registry": {"dns", "admin"},
	"forward":  {"dns"},
	"health":   nil,
	"log":      nil,
	"node":     nil,

	"proxy.listeners":   {"zones", "dns", "admin", "registry"},
	"proxy.vips":        {"zones"},
	"proxy.routes":      {"zones"},
	"proxy.secret_file": nil,
}

// unrelated returns those of later, which are found by comparing values, that
// cannot come from a value that ps says was not read: it would be told twice,
// and the second time wrongly.
func (ps Problems) unrelated(later Problems) Problems {
	if ps.Err() == nil {
		return later
	}
	var out Problems
	for _, p := range later {
		part, list := partOf(p.Key)
		follows := slices.ContainsFunc(ps, func(q Problem) bool {
			qPart, qList := partOf(q.Key)
			if q.Warning {
				return false
			}
			// A section that does not exist may be any, misspelled.
			_, known := leansOn[qList]
			return !known || qPart == part || qPart == list || slices.Contains(leansOn[list], qList)
		})
		if !follows {
			out = append(out, p)
		}
	}
	return out
}

// partOf is the part of a configuration that a key lies in, "zones[1]" of
// "zones[1].ttl", and the name of its section, "zones". The lists of proxy are
// sections of their own.
func partOf(key string) (part, section string) {
	part, rest, _ := strings.Cut(key, ".")
	if part == "proxy" && rest != "" {
		rest, _, _ = strings.Cut(rest, ".")
		part += "." + rest
	}
	section, _, _ = strings.Cut(part, "[")
	return part, section
}

// Err returns the problems that forbid the use of the configuration as one
// error with a line each, or nil when there are none.
func (ps Problems) Err() error {
	var lines []string
	for _, p := range ps {
		if !p.Warning {
			lines = append(lines, p.String())
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return &Error{lines: lines}
}

// Error is a configuration that cannot be used.
type Error struct{ lines []string }

// Error has a line for each problem.
func (e *Error) Error() string { return strings.Join(e.lines, "\n") }
