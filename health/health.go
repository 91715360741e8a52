// Package health finds out and remembers whether check targets are well.
//
// A Monitor owns a set of Targets, probes each at its interval and moves it
// between states by the rise and fall rule. It knows no network: how a target
// is probed is a Prober's matter.
package health

import (
	"context"
	"net/netip"
	"time"
)

// State is what is known of a target's health. Zero is unknown.
type State uint8

// The states.
const (
	Unknown State = iota
	Passing
	Failing
)

// Type is a kind of check. Zero is none.
type Type uint8

// The kinds of check.
const (
	TypeNone Type = iota
	TypeHTTP
	TypeHTTPS
	TypeTCP
	TypeGRPC
	TypeDNS
	TypeTTL // no probe: the instance's heartbeats are the results
)

// Target is one thing to check, complete with its schedule. It is comparable:
// equal Targets are probed once, however many instances ask for them. For
// TypeTTL, Name tells instances apart.
type Target struct {
	Type     Type
	Addr     netip.AddrPort
	Path     string
	Host     string
	Method   string
	Status   string
	Service  string // grpc
	Name     string // dns: qname; ttl: "<source>/<service>/<instance>"
	Record   string // dns: qtype
	Insecure bool

	Interval     time.Duration // TypeTTL: the time a heartbeat is good for
	FastInterval time.Duration // after the first failure
	Timeout      time.Duration
	Rise         int
	Fall         int
}

// Result is the outcome of one probe. A failed check is a Result, not an
// error.
type Result struct {
	OK      bool
	Refused bool          // the connection was refused: answers at once
	Output  string        // one line, bounded, printable
	Latency time.Duration // of the probe
	Load    float64       // reported with the answer; negative: none
}

// Prober probes one target once. It returns by the target's timeout or the
// context's end, whichever is first, and leaves nothing running.
type Prober interface {
	Probe(ctx context.Context, t Target) Result
}

// Status is what a Monitor knows of one target, as a value.
type Status struct {
	State    State
	Since    time.Time // of the last change of State
	Last     time.Time // of the last result; zero: none yet
	Output   string    // of the last result
	Latency  time.Duration
	Failures int // in a row
	Passes   int // in a row
	// VerdictAt is, while State is Passing and failures are running, the
	// earliest time at which the target can become Failing. Zero otherwise.
	VerdictAt time.Time
	// Transitions counts changes of State since the target was added.
	Transitions uint64
	// History holds the last few transitions, oldest first.
	History []Transition
}

// Transition is one change of State.
type Transition struct {
	At     time.Time
	From   State
	To     State
	Output string
}
