package api

import (
	"net/netip"
	"time"

	"github.com/musterdns/muster/health"
)

// ServiceList answers PathServices, sorted by zone and name.
type ServiceList struct {
	Services []Service `json:"services"`
}

// Mode says how the answer of a service comes about at present.
type Mode string

// The modes.
const (
	ModeNormal   Mode = "normal"    // healthy instances are served
	ModeTier     Mode = "tier"      // a lower tier serves, in part or alone
	ModeUnknown  Mode = "unknown"   // nothing passes yet; unknown instances are served
	ModeFailOpen Mode = "fail-open" // nothing passes; all that is registered and undrained is served
	ModeClosed   Mode = "closed"    // nothing passes; the answer is NODATA
	ModeEmpty    Mode = "empty"     // nothing is registered, or all of it is drained
	ModeHidden   Mode = "hidden"    // its name stands for something else too; it is not answered
)

// Service is one service with its effective policy: what its key, the
// configuration and the built-in defaults come to together.
type Service struct {
	Zone   string `json:"zone"`   // absolute: "svc.internal."
	Name   string `json:"name"`   // "web"
	Domain string `json:"domain"` // the name that clients ask for: "web.svc.internal."

	Policy         string       `json:"policy"`
	HashOn         string       `json:"hash_on,omitempty"`
	TTL            Duration     `json:"ttl"`
	MaxAnswers     int          `json:"max_answers"` // 0: auto
	Fail           string       `json:"fail"`
	Spill          string       `json:"spill,omitempty"`
	ProxyPolicy    string       `json:"proxy_policy,omitempty"` // empty: as policy says
	HashBound      float64      `json:"hash_bound,omitempty"`   // 0: none
	VIP            []netip.Addr `json:"vip,omitempty"`          // answered in place of the instances' addresses
	Failover       []string     `json:"failover,omitempty"`     // answered in place of the service while it is not well
	Standin        string       `json:"standin,omitempty"`      // the domain of the service that is so answered now
	PanicThreshold float64      `json:"panic_threshold"`
	SlowStart      Duration     `json:"slow_start"`
	Checks         []string     `json:"checks,omitempty"` // one line each: "http :8080/healthz every 2s"

	Mode   Mode   `json:"mode"`
	Frozen bool   `json:"frozen,omitempty"` // health does not move its answers, by an administrator's word
	Counts Counts `json:"counts"`
	// LastFailure is the last instance that failed while it was answered; nil:
	// none has, since the server runs and the service is there.
	LastFailure *Failure `json:"last_failure,omitempty"`
	// WorstFailure is the one of them after which answers were wrong for longest,
	// apart from those that were kept on purpose (Cause "kept").
	WorstFailure *Failure `json:"worst_failure,omitempty"`
	// Instances is given for one service only, sorted by id.
	Instances []Instance `json:"instances,omitempty"`
}

// Counts counts instances. Passing, Failing and Unknown are their health;
// Drain and Maintenance, apart from health, what an administrator said.
type Counts struct {
	Total       int `json:"total"`
	Serving     int `json:"serving"` // may be answered now
	Passing     int `json:"passing"`
	Failing     int `json:"failing"`
	Unknown     int `json:"unknown"`
	Drain       int `json:"drain"`
	Maintenance int `json:"maintenance"`
}

// Failure is the failure of an instance, as measured by a server at the end of
// its wrong answers.
type Failure struct {
	Instance string    `json:"instance"`
	At       time.Time `json:"at"` // when the wrong answers ended
	// Cause is what found it: the type of a check of this server's, "report" of
	// others' checks, "lease", "deleted", or "kept" where it was known and kept
	// in the answers by fail-open, a freeze or a hold.
	Cause string `json:"cause"`
	// Wrong is the time from the first sign of the failure to At; without any,
	// from when the registry's word of the end of the registration had come.
	Wrong Duration `json:"wrong"`
	// Bound is the time from the last good check to At: wrong answers went on no
	// longer. 0: it is not known.
	Bound Duration `json:"bound,omitempty"`
	// Cached is how long after At caches could hold an answer with it.
	Cached Duration `json:"cached,omitempty"`
	What   string   `json:"what"` // all of that as a clause
}

// InstanceList answers PathInstances, sorted by zone, service and id.
type InstanceList struct {
	Instances []Instance `json:"instances"`
}

// Instance is one registered instance.
type Instance struct {
	Zone    string `json:"zone"`
	Service string `json:"service"`
	ID      string `json:"id"`
	Domain  string `json:"domain"` // "web-1.web.svc.internal."

	Addresses []netip.Addr      `json:"addresses"`
	Port      uint16            `json:"port,omitempty"`
	Ports     map[string]string `json:"ports,omitempty"` // name to "8080/tcp"
	Weight    uint16            `json:"weight"`
	// Effective is the weight that selection uses now: after slow start and
	// load; 0 while not serving.
	Effective float64           `json:"effective_weight"`
	Priority  uint16            `json:"priority"`
	Tags      []string          `json:"tags,omitempty"`
	Meta      map[string]string `json:"meta,omitempty"`
	Region    string            `json:"region,omitempty"`
	Locality  string            `json:"locality,omitempty"` // the instance's zone in the sense of a data centre
	TTL       Duration          `json:"ttl,omitempty"`      // 0: the service's
	Leased    bool              `json:"leased"`             // goes with its registrant's lease

	Serving bool `json:"serving"` // may be answered now
	// Cached is how long from now on caches may hold an answer with it, if it
	// leaves the answers now or has left them.
	Cached Duration     `json:"cached,omitempty"`
	Why    string       `json:"why"` // one sentence: why it is in or out
	Health health.State `json:"health"`
	Since  time.Time    `json:"since,omitzero"` // of the last change of Health
	Admin  *Admin       `json:"admin,omitempty"`
	Load   *Load        `json:"load,omitempty"`
	Checks []Check      `json:"checks,omitempty"`
}

// Admin is an administrator's word on an instance.
type Admin struct {
	State  AdminState `json:"state"`
	Reason string     `json:"reason,omitempty"`
	By     string     `json:"by,omitempty"`
	Since  time.Time  `json:"since,omitzero"`
	Until  time.Time  `json:"until,omitzero"` // zero: until withdrawn
	// All is set when it was said of the whole service.
	All bool `json:"all,omitempty"`
}

// Load is the last load report of an instance. Negative values were not given.
type Load struct {
	Load     float64   `json:"load"`
	Active   int       `json:"active"`
	Capacity int       `json:"capacity,omitempty"`
	At       time.Time `json:"at,omitzero"`
	Stale    bool      `json:"stale,omitempty"` // too old: selection goes by the weight again
}

// Check is one check of an instance and what it found.
type Check struct {
	Type     string       `json:"type"`
	Target   string       `json:"target"` // "http://10.0.0.11:8080/healthz"
	State    health.State `json:"state"`
	Since    time.Time    `json:"since,omitzero"`
	Last     time.Time    `json:"last,omitzero"` // of the last result
	Output   string       `json:"output,omitempty"`
	Latency  Duration     `json:"latency,omitempty"`
	Failures int          `json:"failures,omitempty"` // in a row
	Interval Duration     `json:"interval"`
	Timeout  Duration     `json:"timeout,omitempty"`
	Rise     int          `json:"rise"`
	Fall     int          `json:"fall"`
	History  []Transition `json:"history,omitempty"` // oldest first
}

// Transition is one change of a check's state.
type Transition struct {
	At     time.Time    `json:"at"`
	From   health.State `json:"from"`
	To     health.State `json:"to"`
	Output string       `json:"output,omitempty"`
}

// Explanation answers PathExplain: what a question would be answered, and why.
// It asks the same code that answers DNS.
type Explanation struct {
	Name    string     `json:"name"` // absolute
	Type    string     `json:"type"`
	Client  netip.Addr `json:"client"`
	Outcome string     `json:"outcome"` // NOERROR NODATA NXDOMAIN REFUSED SERVFAIL
	Why     string     `json:"why"`     // one sentence
	Zone    string     `json:"zone,omitempty"`

	// The rest is set when the name is a service's.
	Service string   `json:"service,omitempty"`
	Standin string   `json:"standin,omitempty"` // the domain of the service in its place, of which the rest is
	Filter  string   `json:"filter,omitempty"`  // "tag v2", "port http", ...
	Mode    Mode     `json:"mode,omitempty"`
	Policy  string   `json:"policy,omitempty"`
	Answers int      `json:"answers,omitempty"` // how many are picked
	TTL     Duration `json:"ttl,omitempty"`
	TTLWhy  string   `json:"ttl_why,omitempty"` // "the service's", "instance web-1 may fail in 2s"
	// Detection is the longest time from an instance's death to its absence
	// from new answers; add TTL for what caches hold. 0: no checks, or it stays.
	Detection Duration `json:"detection,omitempty"`
	// LastFailure is of the service as a whole; nil: none has been measured.
	LastFailure  *Failure `json:"last_failure,omitempty"`
	WorstFailure *Failure `json:"worst_failure,omitempty"` // as in Service
	// Near is the zones' parts in the answers to this client, by name, where it is
	// answered from the nearest; none: from all.
	Near         map[string]float64 `json:"near,omitempty"`
	DetectionWhy string             `json:"detection_why,omitempty"` // when it takes less time than that, or why it stays
	Age          Duration           `json:"age,omitempty"`           // of what is known; only when stale
	Records      []string           `json:"records,omitempty"`       // one answer, as zone file lines
	Instances    []Verdict          `json:"instances,omitempty"`     // sorted by id
	Warnings     []string           `json:"warnings,omitempty"`
}

// Verdict is an instance's place in an Explanation.
type Verdict struct {
	ID        string       `json:"id"`
	Addresses []netip.Addr `json:"addresses"`
	In        bool         `json:"in"`
	Why       string       `json:"why"`
	Health    health.State `json:"health"`
	Admin     AdminState   `json:"admin,omitempty"`
	Priority  uint16       `json:"priority"`
	Weight    uint16       `json:"weight"`
	// Share is the part of clients' first choices that comes to it, 0 to 1.
	Share float64 `json:"share"`
}

// TargetGroup is one group of PathPrometheus, in the form of Prometheus's
// HTTP service discovery.
type TargetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}
