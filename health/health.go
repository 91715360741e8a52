// Package health finds out and remembers whether check targets are well.
//
// A Monitor owns a set of Targets, probes each at its interval and moves it
// between states by the rise and fall rule. It knows no network: how a target
// is probed is a Prober's matter.
//
// One heap holds the time at which each target is due and one goroutine waits
// for the earliest; a bounded pool of workers probes. A target that is well costs
// some 130 octets, no pointer and no goroutine, so that a million can be held.
//
// Invariant: this package imports the standard library alone.
package health

import (
	"context"
	"net/netip"
	"strings"
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
	TypeTTL  // no probe: the instance's heartbeats are the results
	TypeHeld // a connection kept open, whose end is a result
	TypeExec // a command of the operator's
)

// Target is one thing to check, complete with its schedule. It is comparable:
// equal Targets are probed once, however many instances ask for them. For
// TypeTTL, Name tells instances apart.
type Target struct {
	Type     Type
	Addr     netip.AddrPort
	Path     string // http, https: the request target; empty: "/". held: as http each Interval; empty: nothing is sent
	Host     string // http, https: Host header and TLS server name; empty: the address
	Method   string // http, https: GET (when empty) or HEAD
	Status   string // http, https: accepted codes: "200-399" (when empty), "200,204"
	Service  string // grpc: the service asked for; empty: the server as a whole
	Name     string // dns: qname; ttl: "<source>/<service>/<instance>"
	Record   string // dns: qtype; empty: A
	Insecure bool   // https: the certificate is not verified
	Keep     bool   // http, https, grpc: the connection is kept for the next check; grpc: and its status watched
	Command  string // exec: as Command makes it

	// Interval is the time from the start of one check to the start of the
	// next; for TypeTTL the time that a heartbeat is good for. Below
	// IntervalMin it counts as that.
	Interval time.Duration
	// FastInterval is the same while a run of results against the present
	// state is under way: after a first failure, or the first success of a
	// failing target. Zero is FastIntervalDefault; never above Interval.
	FastInterval time.Duration
	// Timeout bounds one check as a whole. The Prober keeps to it.
	Timeout time.Duration
	// Rise is how many successes in a row make a failing target pass, Fall how
	// many failures in a row make it fail. Below 1 they count as 1.
	Rise int
	Fall int
}

// Command makes a Target's Command of a program's path and its arguments: each
// ended by a zero octet, which none of them can hold. No words are "".
func Command(words []string) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(w)
		b.WriteByte(0)
	}
	return b.String()
}

const (
	// IntervalMin keeps a mistaken interval from becoming a busy loop.
	IntervalMin = 10 * time.Millisecond
	// FastIntervalDefault is the FastInterval of a Target that has none.
	FastIntervalDefault = 500 * time.Millisecond
	// RefusedRecheck is the time to the next check after a refused connection:
	// nothing listens there, and finding out again costs next to nothing.
	RefusedRecheck = 100 * time.Millisecond
)

// Result is the outcome of one probe, or a report from elsewhere. A failed
// check is a Result, not an error.
type Result struct {
	OK      bool
	Refused bool          // the connection was refused: answers at once
	Final   bool          // a failure that needs no other to confirm it, whatever Fall says
	Output  string        // one line, bounded, printable
	Latency time.Duration // of the probe
	// Load is the utilisation that the instance reported with its answer, 1 is
	// full; negative: none. Only a Result that is OK reports load.
	Load float64
}

// Prober probes one target once. It returns by the target's timeout or the
// context's end, whichever is first, and leaves nothing running. It is safe
// for concurrent use.
type Prober interface {
	Probe(ctx context.Context, t Target) Result
}

// Keeper is a Prober that keeps something of a target between its probes, such
// as a connection, and tells by Monitor.Lost when that has ended.
type Keeper interface {
	Prober
	// Forget ends what is kept of a target that is not to be checked any more.
	// It must not block and must not call the Monitor.
	Forget(t Target)
}

// Status is what a Monitor knows of one target, as a value.
type Status struct {
	State    State
	Since    time.Time // of the last change of State, or of Add
	Last     time.Time // of the last result; zero: none yet
	Output   string    // of the last result
	Latency  time.Duration
	Failures int // in a row
	Passes   int // in a row
	// VerdictAt is, while State is Passing and failures are running, the
	// earliest time at which the target can become Failing. Zero otherwise.
	VerdictAt time.Time
	// FirstSign is the first sign of the failure that is under way, or may be:
	// the beginning of the first check in a row that failed, the end of a kept
	// connection (Monitor.Lost), or a failure reported from elsewhere. LastGood
	// is the beginning of the last check that passed before it; zero: none has.
	// Both are zero while the target is well.
	FirstSign time.Time
	LastGood  time.Time
	// Transitions counts changes of State since the target was added.
	Transitions uint64
	// History holds the last HistoryMax transitions, oldest first. It is shared
	// and never changes: not to be written to.
	History []Transition
}

// HistoryMax is the number of transitions that are kept for a target.
const HistoryMax = 8

// Transition is one change of State.
type Transition struct {
	At     time.Time
	From   State
	To     State
	Output string
}
