package pool

import (
	"time"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/registry"
)

// Mode says how the answer of a service, or of a part of it, comes about. Zero
// is unset.
type Mode uint8

// The modes.
const (
	ModeUnset    Mode = iota
	ModeNormal        // healthy instances are served
	ModeTier          // a lower tier serves, in part or alone
	ModeUnknown       // nothing passes yet: unknown instances are served
	ModeFailOpen      // too little passes: all that is registered and undrained is served
	ModeClosed        // too little passes: nothing is served
	ModeEmpty         // nothing is registered, or all of it is drained
)

// String is the mode's name: "normal", "fail-open".
func (m Mode) String() string {
	switch m {
	case ModeNormal:
		return "normal"
	case ModeTier:
		return "tier"
	case ModeUnknown:
		return "unknown"
	case ModeFailOpen:
		return "fail-open"
	case ModeClosed:
		return "closed"
	case ModeEmpty:
		return "empty"
	case ModeUnset:
		return "unset"
	default:
		return "invalid"
	}
}

// MarshalText is String; it never fails.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// ServiceInfo is one service as an operator sees it: a value, free to change.
type ServiceInfo struct {
	Source registry.SourceID
	Zone   string // absolute: "svc.internal."
	Name   string // relative: "web.prod"
	// Policy is what the service's key, the configuration and the built-in
	// defaults come to together: no field is unset.
	Policy registry.Service
	// Registered is the service's own key; nil when there is none.
	Registered *registry.Service
	Mode       Mode // of the whole service
	// Standin is the domain name of the service that is answered in its place;
	// empty: none is.
	Standin string
	// Frozen is the administrator's word that stops health from moving the
	// answers; nil: none is in force.
	Frozen *registry.Admin
	Counts Counts
	// Answers is how many A or AAAA records are picked for one answer.
	Answers int
	TTL     time.Duration // of an answer given now
	TTLWhy  string        // what decides it: "the service's", "instance web-1 may fail in 2s"
	// Detection is the longest time from an instance's death to its absence
	// from new answers; 0 when nothing is checked, or it stays in them.
	Detection    time.Duration
	DetectionWhy string // when it takes less time than that, or why it stays; empty: nothing to say
	// LastFailure is the last instance whose failure ended wrong answers; nil:
	// none has since this server runs and the service is there.
	LastFailure *Failure
	// WorstFailure is the one of them whose Wrong is the greatest, the last of
	// those; CauseKept does not count. It may be LastFailure.
	WorstFailure *Failure
	// Filters are the names below the service that choose a part of it.
	Filters []FilterInfo
	// OneSource is the part of the questions that come from one source, where the
	// service hashes its clients and that is more than half; else 0.
	OneSource      float64
	FiltersOmitted int    // beyond FiltersMax: not answered
	Hidden         string // why the service is not answered at all; empty: it is
	Instances      []InstanceInfo
}

// Counts counts instances.
type Counts struct {
	Total       int
	In          int // may be answered now
	Passing     int
	Failing     int
	Unknown     int
	Drain       int
	Maintenance int
}

// FilterInfo is one part of a service that has a name of its own.
type FilterInfo struct {
	Kind    FilterKind
	Name    string // the tag, the zone, the port ("http/tcp")
	Mode    Mode
	Members int // registered
	In      int
}

// InstanceInfo is one instance as an operator sees it.
type InstanceInfo struct {
	registry.Instance
	Health health.State // of all its checks together
	Since  time.Time    // of the last change of Health; zero: not known
	Checks []CheckInfo
	Admin  *registry.Admin // in force now; Instance "*" for all of the service
	Load   *registry.Load  // the last report
	// LoadStale is set when the report is too old to be used.
	LoadStale bool
	In        bool   // may be answered now
	Why       string // why it is in or out, one sentence without full stop
	// EffectiveWeight is what selection uses: after slow start and load, in the
	// unit of Weight; 0 while out.
	EffectiveWeight float64
	Share           float64 // of the choices of the service's SRV and A clients, 0 to 1
	// Cached is how long from now on caches may hold an answer with it, if it
	// leaves the answers now or has left them: by the greatest TTL sent lately.
	Cached time.Duration
}

// CheckInfo is one check of an instance and what it found.
type CheckInfo struct {
	Target health.Target
	Status health.Status
}

// SourceStatus is what is known of one source.
type SourceStatus struct {
	ID        registry.SourceID
	Zone      string
	Ready     bool // a complete state was applied
	Snapshot  bool // what is served comes from the snapshot file
	Revision  int64
	AsOf      time.Time
	Age       time.Duration // since AsOf
	Stale     bool
	Serial    uint32
	Services  int
	Instances int
	Members   []registry.Member // sorted by name
}

// Problem is a record that could not be used, or not all of it, with its source.
type Problem struct {
	Source registry.SourceID
	Zone   string
	registry.Problem
}

// Counters is what the pool has counted since it was made.
type Counters struct {
	Batches          uint64 // applied
	Rebuilds         uint64 // of services
	HealthChanges    uint64 // of instances
	FailOpens        uint64 // services that went over to fail-open
	Problems         uint64 // records found bad
	ProblemsDropped  uint64 // not listed since ProblemsMax were
	FiltersOmitted   uint64 // filters beyond FiltersMax, summed over rebuilds
	AddressesOmitted uint64 // names beyond NamesPerAddressMax, summed over changes
	EventsLost       uint64 // by subscribers too slow
	ListingsOmitted  uint64 // listings published without all, since they have more than ListingMax
	UnknownSource    uint64 // batches of a source not configured
	TableRebuilds    uint64 // of the view's table
	ChurnHolds       uint64 // times that removals were held, since too many fell at once
	Damped           uint64 // times that an instance was held back, since it flaps
	Suspected        uint64 // times that this server doubted its own checks
	ReportsDropped   uint64 // of other servers, beyond health.SharersMax of an instance

	Modes  [ModeEmpty + 1]int // services now, by their mode; none is counted as ModeUnset
	Frozen int                // services now of which health does not move the answers
}
