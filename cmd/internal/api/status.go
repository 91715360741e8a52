package api

import "time"

// Status answers PathStatus: the server as a whole.
type Status struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Dev     bool      `json:"dev,omitempty"`
	Ready   bool      `json:"ready"`
	// Waiting says what readiness waits for; empty when Ready.
	Waiting []string `json:"waiting,omitempty"`

	DNS      []string       `json:"dns"`   // addresses listened on, UDP and TCP alike; URLs of further transports
	Proxy    bool           `json:"proxy"` // there are listeners of the proxy: PathProxy
	Admin    string         `json:"admin"` // address listened on
	Zones    []ZoneStatus   `json:"zones"`
	Registry RegistryStatus `json:"registry"`
	Members  []Member       `json:"members"`
	Config   ConfigStatus   `json:"config"`

	Services  int    `json:"services"`
	Instances Counts `json:"instances"`
	Problems  int    `json:"problems"` // records that could not be used
	Queries   uint64 `json:"queries"`  // answered since the start
}

// ZoneStatus is one zone that the server is authoritative for.
type ZoneStatus struct {
	Name   string `json:"name"`
	Source string `json:"source"` // muster reverse file
	Prefix string `json:"prefix,omitempty"`
	File   string `json:"file,omitempty"`
	Serial uint32 `json:"serial"`
	// Services counts those of a service zone, Records those of a static one.
	Services int `json:"services,omitempty"`
	Records  int `json:"records,omitempty"`
}

// RegistryStatus is the state of the connection to the registry.
type RegistryStatus struct {
	Mode      string   `json:"mode"` // embedded, etcd, or none without a service zone
	Endpoints []string `json:"endpoints"`
	Connected bool     `json:"connected"`
	Revision  int64    `json:"revision"`
	// Age is how old what is known may be at most.
	Age      Duration `json:"age"`
	Stale    bool     `json:"stale"`              // older than registry.stale_after: answers carry EDE 3
	Snapshot bool     `json:"snapshot,omitempty"` // what is served comes from the snapshot file
	Error    string   `json:"error,omitempty"`    // of the last attempt, while not connected
}

// Member is a live server of the same registry.
type Member struct {
	Name    string    `json:"name"`
	Address string    `json:"address,omitempty"` // of its admin API
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Self    bool      `json:"self,omitempty"`
}

// ConfigStatus says which configuration is in force.
type ConfigStatus struct {
	File   string    `json:"file,omitempty"` // empty: none was read
	Loaded time.Time `json:"loaded"`
	// Problems of a newer configuration that was refused, one a line.
	Problems []string `json:"problems,omitempty"`
}

// Doctor answers PathDoctor, gravest findings first.
type Doctor struct {
	Findings []Finding `json:"findings"`
}

// Severity is how grave a finding is.
type Severity string

// The severities.
const (
	SeverityError   Severity = "error"   // something does not work
	SeverityWarning Severity = "warning" // something will not, or not well
	SeverityInfo    Severity = "info"    // worth knowing
)

// Finding is one thing that is wrong, where, and what to do about it.
type Finding struct {
	Severity Severity `json:"severity"`
	// Subject is what is wrong: an etcd key (quoted), "service web.svc.internal.",
	// "registry", "muster.yaml:3:5", "udp socket buffer".
	Subject string `json:"subject"`
	Problem string `json:"problem"` // one line
	Mend    string `json:"mend,omitempty"`
}

// EventKind is the kind of an Event.
type EventKind string

// The kinds of events.
const (
	EventInstanceAdded   EventKind = "instance-added"
	EventInstanceRemoved EventKind = "instance-removed"
	EventInstanceChanged EventKind = "instance-changed"
	EventHealth          EventKind = "health"  // From and To are health states
	EventAdmin           EventKind = "admin"   // From and To are administrator's states
	EventServing         EventKind = "serving" // From and To are "in" and "out"
	EventService         EventKind = "service" // From and To are modes, or empty: the policy changed
	EventRegistry        EventKind = "registry"
	EventProblem         EventKind = "problem" // a record could not be used, or was mended
	EventFailure         EventKind = "failure" // an instance that failed is answered no more: Failure
	EventAlarm           EventKind = "alarm"   // To is held, released, suspect or trusted
	// EventGap stands for events that are no longer kept: between Last-Event-ID
	// and this event's id some were lost, so read the lists anew.
	EventGap EventKind = "gap"
)

// Event is one thing that happened. Its ID is the id of the server-sent event:
// it counts up by one from the microseconds since 1970 at which the server
// started, so that it never goes back, and a client that resumes after a
// restart gets an EventGap. (It stays below 2^53, as scripts in browsers need.)
type Event struct {
	ID       uint64    `json:"id"`
	At       time.Time `json:"at"`
	Kind     EventKind `json:"kind"`
	Zone     string    `json:"zone,omitempty"`
	Service  string    `json:"service,omitempty"`
	Instance string    `json:"instance,omitempty"`
	From     string    `json:"from,omitempty"`
	To       string    `json:"to,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Failure  *Failure  `json:"failure,omitempty"` // of an EventFailure
}
