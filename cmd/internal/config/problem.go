package config

import (
	"fmt"
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
