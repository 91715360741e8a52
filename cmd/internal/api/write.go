package api

import (
	"encoding/json"
	"time"
)

// AdminState is what an administrator says of an instance.
type AdminState string

// The administrator's states. AdminNone withdraws what was said.
const (
	AdminNone        AdminState = "none"
	AdminDrain       AdminState = "drain"
	AdminMaintenance AdminState = "maintenance"
	AdminUp          AdminState = "up"
	AdminDown        AdminState = "down"
	AdminFreeze      AdminState = "freeze" // of Freeze alone
)

// AllInstances is the instance in an AdminRequest that means all of a service.
const AllInstances = "*"

// Freeze is the instance in an AdminRequest with AdminFreeze: health does not
// move the answers of the service, or, with AllServices, of any.
const Freeze = "_freeze"

// AllServices is the service in an AdminRequest that means all of a zone.
const AllServices = "*"

// Written answers a write.
type Written struct {
	Revision int64 `json:"revision"` // of the registry, after the write
}

// RegisterRequest registers an instance, or replaces one of the same id.
type RegisterRequest struct {
	Zone    string `json:"zone,omitempty"` // default: the only, else the first service zone
	Service string `json:"service"`
	ID      string `json:"id"`
	// Instance is the document that the instance's etcd key holds:
	// {"address":"10.0.0.11","port":8080,...}. Without an address, the caller's
	// own is taken.
	Instance json.RawMessage `json:"instance"`
	// TTL, when set, makes the registration go unless a heartbeat comes that
	// often; at least LeaseTTLMin. The server that took the registration holds
	// its lease. 0: until deregistered.
	TTL Duration `json:"ttl,omitempty"`
}

// LeaseTTLMin is the shortest RegisterRequest.TTL: etcd grants no shorter lease
// with its default election timeout.
const LeaseTTLMin = Duration(2 * time.Second)

// Registered answers a RegisterRequest.
type Registered struct {
	Zone     string `json:"zone"`
	Domain   string `json:"domain"` // "web-1.web.svc.internal."
	Key      string `json:"key"`    // the etcd key
	Revision int64  `json:"revision"`
}

// DeregisterRequest deletes a registration.
type DeregisterRequest struct {
	Zone     string `json:"zone,omitempty"`
	Service  string `json:"service"`
	Instance string `json:"instance"`
}

// HeartbeatRequest says that an instance lives: it keeps up a registration made
// with a TTL, and is a result for the instance's checks of type ttl.
type HeartbeatRequest struct {
	Zone     string `json:"zone,omitempty"`
	Service  string `json:"service"`
	Instance string `json:"instance"`
	// Failing makes the heartbeat a failed result; the registration stays.
	Failing bool   `json:"failing,omitempty"`
	Output  string `json:"output,omitempty"` // one line, for people
	// Load, when given, is written as the instance's load: utilisation, 1 is full.
	Load *float64 `json:"load,omitempty"`
}

// Heartbeat answers a HeartbeatRequest.
type Heartbeat struct {
	// Held says whether this server holds a lease for the instance. When it
	// does not, although the caller registered with a TTL, the server was
	// restarted: register again.
	Held bool `json:"held"`
	// Next is when the next heartbeat is due; 0: nothing waits for one.
	Next Duration `json:"next"`
}

// AdminRequest says an administrator's word on an instance, or withdraws it.
type AdminRequest struct {
	Zone     string     `json:"zone,omitempty"`
	Service  string     `json:"service"`
	Instance string     `json:"instance"` // or AllInstances, or Freeze
	State    AdminState `json:"state"`
	Reason   string     `json:"reason,omitempty"`
	By       string     `json:"by,omitempty"`
	For      Duration   `json:"for,omitempty"` // withdrawn by itself after this; 0: never
}

const (
	// drainGrace is what is added to the time that caches may hold an instance: the
	// other servers hear of a drain a moment later, some caches count whole seconds
	// (unbound), and who has just asked has still to connect.
	drainGrace = Duration(2 * time.Second)
	// cacheMin is how long CoreDNS's cache keeps an answer at least, whatever its TTL.
	cacheMin = Duration(5 * time.Second)
)

// SafeAfter is after what time it is safe to stop an instance that caches may hold for
// as long by its TTL; 0: none does.
func SafeAfter(cached Duration) Duration {
	if cached <= 0 {
		return 0
	}
	return max(cached, cacheMin) + drainGrace
}

// AdminSet answers an AdminRequest.
type AdminSet struct {
	Revision int64     `json:"revision"`
	Until    time.Time `json:"until,omitzero"`
	// SafeAfter is, for drain, maintenance and down, the time after which it is
	// safe to stop the instance: by then well-behaved caches hold no answer with
	// it any more (the greatest TTL lately sent with it, or the 5 s that CoreDNS
	// keeps any answer), and some time more. 0: no cache holds any now.
	SafeAfter Duration `json:"safe_after,omitempty"`
	// Left is how many instances of the service are still served.
	Left int `json:"left"`
}

// WeightRequest changes the weight of a registered instance; its lease, if it
// has one, is kept.
type WeightRequest struct {
	Zone     string `json:"zone,omitempty"`
	Service  string `json:"service"`
	Instance string `json:"instance"`
	Weight   uint16 `json:"weight"`
}

// ServiceRequest changes the policy of a service. Patch is a JSON merge patch
// (RFC 7396) to the document that the service's etcd key holds: a member
// replaces, null withdraws, and what is not named stays.
type ServiceRequest struct {
	Zone    string          `json:"zone,omitempty"`
	Service string          `json:"service"`
	Patch   json.RawMessage `json:"patch"`
}

// DemoAction is what can be done to a sample instance of `muster dev`.
type DemoAction string

// The actions.
const (
	DemoKill   DemoAction = "kill"   // its server ends: connections are refused
	DemoRevive DemoAction = "revive" // it is well again
	DemoSlow   DemoAction = "slow"   // it answers late
	DemoFail   DemoAction = "fail"   // it answers 500
)

// DemoRequest acts on a sample instance.
type DemoRequest struct {
	Instance string     `json:"instance"`
	Action   DemoAction `json:"action"`
	Delay    Duration   `json:"delay,omitempty"` // slow: how late; default 5 s
}

// DemoInstance is a sample instance.
type DemoInstance struct {
	Service string `json:"service"`
	ID      string `json:"id"`
	Address string `json:"address"` // "127.0.1.1:8081"
	// State is "well", "killed", "slow" or "failing".
	State string `json:"state"`
}
