package api

import (
	"net/netip"
	"time"
)

// Proxy answers PathProxy: the companion proxy of one server.
type Proxy struct {
	Listeners []ProxyListener `json:"listeners"`
	Routes    []ProxyRoute    `json:"routes"` // in the order in which they are tried
	Services  []ProxyService  `json:"services"`
	VIPs      []ProxyVIP      `json:"vips,omitempty"`
}

// ProxyListener is one address at which connections are taken.
type ProxyListener struct {
	Name    string `json:"name"`
	Mode    string `json:"mode"` // tcp, udp, http, nat, dsr
	Address string `json:"address"`
	Service string `json:"service,omitempty"` // of what no route or name sends elsewhere
	Active  int64  `json:"active"`            // connections now
	Taken   uint64 `json:"taken"`             // connections since the start
	Refused uint64 `json:"refused"`           // connections and requests that got no instance, or were over a limit

	// Of modes nat and dsr, where the kernel forwards and only it counts. With
	// dsr Active is 0: nobody sees a connection end.
	Interface string         `json:"interface,omitempty"` // dsr
	Attached  string         `json:"attached,omitempty"`  // dsr: xdp-native, xdp-generic or tcx
	Error     string         `json:"error,omitempty"`     // why the kernel has not what is wanted
	Instances []ProxyTraffic `json:"instances,omitempty"`
}

// ProxyTraffic is one instance of a listener of mode nat or dsr, with what the
// kernel has counted since the instance came.
type ProxyTraffic struct {
	ID           string         `json:"id"`
	Address      netip.AddrPort `json:"address"`
	In           bool           `json:"in"` // it gets new connections
	Why          string         `json:"why,omitempty"`
	Active       int64          `json:"active"` // connections now; 0 with dsr
	Connections  uint64         `json:"connections"`
	Packets      uint64         `json:"packets"` // to the instance
	Bytes        uint64         `json:"bytes"`
	ReplyPackets uint64         `json:"reply_packets"` // back through this machine: none with dsr
	ReplyBytes   uint64         `json:"reply_bytes"`
}

// ProxyVIP is a virtual address.
type ProxyVIP struct {
	Address   netip.Prefix `json:"address"`
	Interface string       `json:"interface"`
	Holding   bool         `json:"holding"` // by this server
	Until     time.Time    `json:"until,omitzero"`
	Terms     uint64       `json:"terms"` // times that it has come to hold it
	Failures  uint64       `json:"failures"`
}

// ProxyRoute is one route.
type ProxyRoute struct {
	Name    string   `json:"name"`
	Hosts   []string `json:"hosts,omitempty"`
	Path    string   `json:"path,omitempty"`
	Service string   `json:"service"`
	Zone    string   `json:"zone,omitempty"`
	Source  string   `json:"source"`            // "etcd" or "configuration"
	Problem string   `json:"problem,omitempty"` // why it is not in force; empty: it is
}

// ProxyService is one service as the proxy sees it.
type ProxyService struct {
	Zone      string          `json:"zone"`
	Service   string          `json:"service"`
	Part      string          `json:"part,omitempty"`   // "port http", "tag v2"; empty: the whole
	Policy    string          `json:"policy,omitempty"` // empty: it is not registered
	Mode      Mode            `json:"mode,omitempty"`
	Active    int64           `json:"active"` // requests or connections in flight
	Instances []ProxyInstance `json:"instances"`
}

// ProxyInstance is one instance as the proxy sees it, with what the kernel does for
// it in modes nat and dsr.
type ProxyInstance struct {
	ID        string         `json:"id"`
	Address   netip.AddrPort `json:"address"`
	In        bool           `json:"in"`    // it may be chosen
	Share     float64        `json:"share"` // of the choices while nothing is in flight, 0 to 1
	Active    int64          `json:"active"`
	Total     int64          `json:"total"`
	Failures  int64          `json:"failures"`
	Ejections int64          `json:"ejections"` // since it came
	BytesIn   int64          `json:"bytes_in"`  // from clients
	BytesOut  int64          `json:"bytes_out"` // to clients
	Ejected   bool           `json:"ejected"`
	Why       string         `json:"why"`
}

// ProxyExplanation answers PathProxyExplain: which way a request or connection
// would take, and why.
type ProxyExplanation struct {
	Listener   string           `json:"listener"`
	Mode       string           `json:"mode"`
	Considered []ProxyCandidate `json:"considered,omitempty"` // routes whose host and path match, in the order tried
	Route      string           `json:"route,omitempty"`      // empty: none matches
	Service    string           `json:"service,omitempty"`
	Target     string           `json:"target,omitempty"`   // what the instance would be asked for
	Protocol   string           `json:"protocol,omitempty"` // spoken to the instance
	Instance   string           `json:"instance,omitempty"` // empty: none may be served
	Address    string           `json:"address,omitempty"`
	// Certain says that it would be this instance; else chance or the load
	// decides.
	Certain   bool            `json:"certain"`
	Limited   bool            `json:"limited,omitempty"` // the route's limit would refuse it now
	Why       string          `json:"why"`
	Instances []ProxyInstance `json:"instances,omitempty"`
}

// ProxyCandidate is a route that was looked at.
type ProxyCandidate struct {
	Route string `json:"route"`
	Why   string `json:"why"` // why it was taken or passed over
}
