// Package registry says what is registered: services, their instances and what
// administrators and load reporters say of them, as values that any source
// (native etcd keys, a snapshot file, a foreign format) turns its records into.
//
// A source is a Watcher: it calls a sink with Batches, each the changes of one
// source at one revision. Writer and Holder are the other direction, used by
// the command line, the API and registrants.
//
// Invariant: this package is a leaf; it imports the standard library alone and
// knows neither etcd nor DNS.
package registry

import (
	"context"
	"net/netip"
	"time"
)

// SourceID names one source of records within a process. Zero is no source.
type SourceID uint16

// Kind is the kind of record that a Key names. Zero is unknown.
type Kind uint8

// The kinds of record.
const (
	KindUnknown Kind = iota
	KindInstance
	KindService
	KindAdmin
	KindLoad
	KindMember
	KindRoute
	KindHealth
)

// Key names one record. Service and Name are case-folded. Name is the
// instance's id (KindInstance, KindAdmin, KindLoad, KindHealth) or the server's
// name (KindMember) or the route's (KindRoute). For KindAdmin it may be
// AllInstances, or Freeze, which may be of AllServices. Sub is the name of the
// server that checks, for KindHealth alone.
type Key struct {
	Source  SourceID
	Kind    Kind
	Service string
	Name    string
	Sub     string
}

// Batch is the changes of one source since the Batch before it, up to one
// revision. Of several changes of one record it holds the last, so no key
// stands both in Deleted and among the records.
//
// Reset with More, then More, then one without More are the complete state of
// the source in pages of at most PageMax records. The receiver applies them as
// a difference when the last page has come; until then it goes on with what it
// had. The sink owns nothing of a Batch after it returns; an error from it
// ends Watch.
type Batch struct {
	Source   SourceID
	Revision int64
	Reset    bool // first page of a complete state
	More     bool // another page of this state follows

	// AsOf is the latest time at which the source's state is known to have
	// been what this and earlier batches say: the time a linearizable read
	// that proved it was sent, or the time a snapshot was taken. A batch that
	// carries nothing else is such a proof. Zero proves nothing.
	AsOf time.Time
	// Snapshot is set when the state was read from a snapshot file and not
	// from the source itself.
	Snapshot bool

	Instances []Instance
	Services  []Service
	Admin     []Admin
	Loads     []Load
	Members   []Member
	Routes    []Route
	Reports   []Report
	Notes     []Note
	Deleted   []Key
	// Lost are those instances and notes of Deleted that went since the lease ended
	// that they were under, without a word of their registrant's. The others of
	// Deleted were deleted.
	Lost []Key
	// Kept are routes whose present value cannot be used, which is a Problem: who
	// has a record of before keeps it, also where a Reset state does not have it.
	Kept []Key

	// Problems are records that could not be used, or not all of them. One is withdrawn by a
	// later batch in which its RawKey stands in Mended, or by a Reset state
	// that does not list it.
	Problems []Problem
	Mended   []string
}

// Note is a record in a format of others' that is more than an instance, or none: what
// its reader made of it.
type Note struct {
	Key         Key
	Value       any
	Incarnation int64
	Revision    int64
	Leased      bool
}

// PageMax is the number of records in one page of a complete state, at most.
const PageMax = 10_000

// Instance is one endpoint of a service.
type Instance struct {
	Service string // case-folded, may have several labels: "web.prod"
	ID      string // one label, case-folded

	Addresses []netip.Addr // at least one; no zone, never unspecified
	Port      uint16       // default port; 0: none
	Ports     []Port       // named ports, sorted by name
	Weight    uint16       // 0: only when nothing else is left
	Priority  uint16       // tier; 0 is the first
	Tags      []string     // case-folded, sorted, distinct
	Meta      map[string]string
	Region    string        // case-folded
	Zone      string        // case-folded
	TTL       time.Duration // 0: the service's
	Checks    []Check       // nil: the service's; empty and not nil: none

	// Incarnation tells two lives of one id apart (etcd: the create revision).
	Incarnation int64
	Revision    int64 // of the last change
	Leased      bool  // goes when its registrant's lease goes
	// Ignored names the fields of the record that are not known, as decoding found them,
	// the first few, a line each: "wieght", "checks[0].intervall".
	Ignored string
}

// Port is a named port of an instance.
type Port struct {
	Name   string // a label, case-folded
	Number uint16
	Proto  string // "tcp" or "udp"
}

// Check says how an instance's health is found out. Zero fields take the
// defaults of the server's configuration.
type Check struct {
	Type     string   // http https tcp grpc dns ttl held exec
	Port     string   // name of a port or a number; empty: the default port
	Path     string   // http, https: request target; default "/". held: asked for each Interval; empty: nothing is
	Host     string   // http, https: Host header and TLS server name
	Method   string   // http, https: GET (default) or HEAD
	Status   string   // http, https: accepted codes, "200-399" (default), "200,204"
	Service  string   // grpc: the service name asked for
	Name     string   // dns: the question's name
	Record   string   // dns: the question's type, default A
	Insecure bool     // https: do not verify the certificate
	Keep     bool     // http, https, grpc: keep the connection, check again when it ends; grpc: watch the status
	Command  []string // exec: an absolute path and its arguments
	Interval time.Duration
	Timeout  time.Duration
	Rise     int
	Fall     int
}

// Service is the policy of one service. Zero fields are unset: the next layer
// (configuration by name, then "*", then the built-in defaults) decides them.
type Service struct {
	Name           string
	Policy         string        // weighted round-robin least-loaded hash all
	TTL            time.Duration // 0: unset
	MaxAnswers     int           // 0: unset; MaxAnswersAuto: auto
	HashOn         string        // client subnet name
	Checks         []Check       // nil: unset; empty and not nil: none
	Fail           string        // open closed tier
	PanicThreshold *float64      // share of healthy weight, 0 to 1; nil: unset
	SlowStart      *time.Duration
	Spill          string // proportional when-empty
	// ProxyPolicy is how proxies choose: a Policy, or peak-ewma; empty: as
	// Policy says. HashBound is how many times its share of the requests in
	// flight an instance may have under hash, 1 or more; 0: unset.
	ProxyPolicy string
	HashBound   float64
	// VIP are the addresses that A and AAAA questions for the service are
	// answered with, in place of the instances', while one of them may be
	// served; nil: unset; empty and not nil: none.
	VIP []netip.Addr
	// Failover are services that are answered in place of this one while too few of
	// its instances may be, the first of them that is well: a name with a dot at its
	// end is an absolute domain name of a service of any zone, another is a service
	// of the same zone. nil: unset; empty and not nil: none.
	Failover []string
	Meta     map[string]string
	Revision int64
	Ignored  string // as Instance.Ignored
}

// MaxAnswersAuto is Service.MaxAnswers for "auto".
const MaxAnswersAuto = -1

// AdminState is what an administrator says of an instance. Zero is nothing.
type AdminState uint8

// The administrator's states.
const (
	AdminNone AdminState = iota
	AdminDrain
	AdminMaintenance
	AdminUp
	AdminDown
	// AdminFreeze is of no instance: it stops health from moving the answers of
	// a service, or of all.
	AdminFreeze
)

// Admin is an administrator's word on one instance, or on all of a service
// (Instance AllInstances), or on what its checks find (Instance Freeze).
type Admin struct {
	Service  string
	Instance string
	State    AdminState
	Reason   string
	By       string
	Since    time.Time // when it was said; zero: not known
	Until    time.Time // zero: until withdrawn
	Revision int64
	Ignored  string // as Instance.Ignored
}

// Load is a load report of one instance.
type Load struct {
	Service  string
	Instance string
	Load     float64 // utilisation; 1 is full. Negative: not given
	Active   int     // requests in flight; negative: not given
	Capacity int     // 0: not given
	Revision int64
	// At is when the report was received, by this process's clock. One that is
	// read again with the complete state keeps its Revision and is no new
	// report.
	At      time.Time
	Ignored string // as Instance.Ignored
}

// Member is a live Muster server of this registry.
type Member struct {
	Name    string
	Address string // where its admin API listens
	Version string
	Since   time.Time
	// Suspect is set while the server doubts its own checks: most of what it
	// checks failed at once, which is more likely its own network. Its reports
	// of failure have no say then where another server checks too.
	Suspect bool
}

// Report is what the checks of one server say of one instance.
type Report struct {
	Service  string
	Instance string
	Checker  string // the name of the server among the members
	Passing  bool   // else failing
	Reason   string // what the check said; may be empty
	Since    time.Time
	// FirstSign is, of a failure, when it was first seen, and LastGood when the
	// last check before that passed; zero: not known. All times are by the
	// server's clock, in milliseconds.
	FirstSign time.Time
	LastGood  time.Time
	// Incarnation is that of the instance that was checked; 0: not given.
	Incarnation int64
	Revision    int64
}

// Problem is what is wrong with one record.
type Problem struct {
	RawKey   string // as in the source, unescaped; quote it when printing
	Reason   string // what is wrong, one line, no control characters
	Mend     string // what to do about it
	Revision int64
	// Used says that the record is in force without a part of it, fields that are not
	// known; one that is not Used is skipped.
	Used bool
}

// Watcher follows one source.
type Watcher interface {
	// Watch calls sink with the complete state (a Reset) and then with every
	// change, until ctx ends or sink fails; it returns that error. It resumes
	// by itself after disconnects; after a compaction, or when the source's
	// revision or identity goes back, it starts over with a Reset. Records
	// that cannot be used are skipped alone and reported as Problems: what was
	// there before ends, but for routes, which are Kept. The sink
	// is called from one goroutine at a time and may block.
	Watch(ctx context.Context, sink func(Batch) error) error
}

// Op is one write. A nil Value deletes. A Create fails with ErrExists when the
// key is there already. With IfRevision the write fails with ErrChanged unless
// the record's last change was at that revision. KeepLease leaves the record
// under the lease that it has (a registration whose weight is changed); without
// it a write takes the record out of its lease, or puts it under Lease, which is
// one that a Holder of the same store has returned: ErrLost while that lease is
// being made again.
type Op struct {
	Key        Key
	Value      []byte
	Create     bool
	IfRevision int64
	KeepLease  bool
	Lease      Lease
}

// Record is one record as it is stored.
type Record struct {
	Value    []byte
	Revision int64 // of the last change
	Leased   bool
}

// Reader reads one record past every cache (a linearizable read), for
// read-modify-write with Op.IfRevision. ErrNotFound when there is none.
type Reader interface {
	Get(ctx context.Context, k Key) (Record, error)
}

// Writer changes records. All ops of one call are one transaction: one
// revision, all or nothing. At most OpsMax ops.
type Writer interface {
	Apply(ctx context.Context, ops []Op) (revision int64, err error)
}

// OpsMax is the greatest number of ops in one Apply (etcd's own default).
const OpsMax = 128

// Holder keeps records that live as long as their holder.
type Holder interface {
	// Hold writes the record under a new lease of the given time to live and
	// keeps the lease alive until the Lease is closed. When the lease is lost
	// (a partition longer than ttl) it is made again and the record written
	// again, without end; Lost tells of it.
	Hold(ctx context.Context, k Key, value []byte, ttl time.Duration) (Lease, error)
}

// Lease is a record being held.
type Lease interface {
	// Update replaces the held value.
	Update(ctx context.Context, value []byte) error
	// Lost receives a value each time the lease was found lost; 1-slot.
	Lost() <-chan struct{}
	// Close deletes the record, which tells everybody that its holder wants it
	// gone, and lets the lease expire. It waits at most as long as ctx; the
	// record then goes with its lease.
	Close(ctx context.Context) error
	// Revoke ends the lease with all records under it, as if its holder had died.
	Revoke(ctx context.Context) error
}
