// Package api has the types of the admin API, as they stand in its JSON, and a
// client for it. The server and the command line share them, so that neither
// can drift from the other.
//
// Reading: GET /v1/services, /v1/services/{name}, /v1/instances, /v1/explain,
// /v1/events (server-sent events), /v1/status, /v1/doctor, /v1/proxy,
// /v1/proxy/explain, /v1/demo and /v1/sd/prometheus. Writing: POST to the Path constants of this package with
// a JSON body; with a token configured it needs "Authorization: Bearer TOKEN".
// A request that fails has a status of 400 or above and an ErrorBody.
//
// Names of services, instances and zones are taken in any case and given back
// case-folded. Unknown members of a request's body are errors; unknown members
// of a response are ignored, so that an older client talks to a newer server.
//
// Invariant: this package imports the standard library and health alone.
package api

// The paths of the API.
const (
	PathServices   = "/v1/services"      // GET ServiceList; with /{name}: Service with its Instances
	PathInstances  = "/v1/instances"     // GET InstanceList
	PathExplain    = "/v1/explain"       // GET Explanation
	PathEvents     = "/v1/events"        // GET server-sent events, each an Event
	PathStatus     = "/v1/status"        // GET Status
	PathDoctor     = "/v1/doctor"        // GET Doctor
	PathPrometheus = "/v1/sd/prometheus" // GET []TargetGroup

	PathProxy        = "/v1/proxy"         // GET Proxy
	PathProxyExplain = "/v1/proxy/explain" // GET ProxyExplanation

	PathRegister   = "/v1/register"   // POST RegisterRequest, Registered
	PathDeregister = "/v1/deregister" // POST DeregisterRequest, Written
	PathHeartbeat  = "/v1/heartbeat"  // POST HeartbeatRequest, Heartbeat
	PathAdmin      = "/v1/admin"      // POST AdminRequest, AdminSet
	PathWeight     = "/v1/weight"     // POST WeightRequest, Written
	PathService    = "/v1/service"    // POST ServiceRequest, Service
	PathDemo       = "/v1/demo"       // GET []DemoInstance; POST DemoRequest, DemoInstance: `muster dev` only

	PathHealthz = "/healthz" // GET 200 while the process lives
	PathReadyz  = "/readyz"  // GET 200 once ready; ?verbose says what it waits for
	PathMetrics = "/metrics" // GET Prometheus text
)

// The names of query parameters.
const (
	ParamZone    = "zone"    // services, instances, events: of this zone only
	ParamService = "service" // instances, events, sd: of this service only
	ParamName    = "name"    // explain: the question's name, relative to the only service zone or absolute
	ParamType    = "type"    // explain: the question's type, default A
	ParamClient  = "client"  // explain: as if this address asked, default the caller's own
	ParamSince   = "since"   // events: like Last-Event-ID, which wins
	ParamTarget  = "target"  // proxy/explain: a URL, a listener's name or its address
	ParamMethod  = "method"  // proxy/explain: of the request, default GET
	ParamHeader  = "header"  // proxy/explain: "Name: value", any number of times
)

// BodyMax is the greatest size of a request's body, in octets. A registration
// is a few hundred; an etcd value may not exceed 1.5 MiB anyway.
const BodyMax = 1 << 20
