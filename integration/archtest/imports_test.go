package archtest_test

import (
	"slices"
	"strings"
	"testing"
)

// importRow says which of our own packages a package may import. The most
// specific row counts. Tests may import more: what their package may, test
// helpers, and what they need to build a case.
type importRow struct {
	pkg string   // a package; with a last "/*" everything below it
	may []string // packages; with a last "/*" everything below it
	why string
}

// ours is the import table. A package without a row fails: adding a package
// means saying here what it may know.
var ours = []importRow{
	{"dnsserver/wire", nil, "the query path's own wire code: fuzzed and measured alone"},
	{"registry", nil, "the words that every source and consumer share; a leaf"},
	{"health", nil, "schedule and verdict without a network; a leaf"},
	{"lb", nil, "pure selection; a leaf"},

	{"registry/*", []string{"registry"}, "a source turns foreign records into the registry's words and knows nobody else"},
	{"registry/etcd/embedded", nil, "a server to talk to; it needs none of our words"},
	{"health/probe", []string{"health", "dnsserver/wire"}, "probers speak protocols; the schedule is the monitor's"},

	{"lb/pool", []string{"registry", "health", "lb"}, "the one place where registration, health and selection meet"},
	{"lb/proxyproto", nil, "a header that proxies read and write: fuzzed alone"},
	{"lb/clienthello", nil, "what a TLS client says first: fuzzed alone"},
	{"lb/locality", nil, "networks become numbers, whoever asks"},
	{"lb/dispatch", []string{"registry", "health", "lb", "lb/pool"}, "what the proxies have in common: the view becomes the choice for one connection or request"},
	{"lb/l4", []string{"lb", "lb/pool", "lb/dispatch", "lb/proxyproto", "lb/clienthello"}, "a proxy reads the view, like DNS does"},
	{"lb/l7", []string{"registry", "lb", "lb/pool", "lb/dispatch", "lb/l7/*"}, "a proxy reads the view, like DNS does; routes are records of the registry"},
	{"lb/l7/http1", nil, "HTTP/1.1's wire code: fuzzed and measured alone"},
	{"lb/l7/route", []string{"registry", "lb/l7/http1"}, "routes and a request's head become one route"},
	{"lb/l7/limit", nil, "token buckets, whoever is limited"},
	{"lb/kernel", []string{"lb"}, "the words that the data planes share; whoever drives them turns the view into these"},
	{"lb/kernel/nat", []string{"lb", "lb/kernel"}, "a data plane is told what to do in plain values"},
	{"lb/kernel/dsr", []string{"lb", "lb/kernel"}, "a data plane is told what to do in plain values"},
	{"lb/kernel/vip", []string{"lb/kernel"}, "who holds an address, and what that lacks; planes are told through a function"},
	{"lb/kernel/kerneltest", nil, "machines and networks for tests of the data planes"},

	{"zones", []string{"dnsserver/wire"}, "names and records, whoever serves them"},
	{"zones/zonefile", []string{"zones", "dnsserver/wire"}, "master files become zones"},
	{"zones/sign", []string{"zones", "dnsserver/wire"}, "keys and signatures, whatever they are of"},
	{"zones/service", []string{"zones", "dnsserver/wire", "registry", "registry/skydns", "lb", "lb/pool"}, "the view becomes records, and SkyDNS's records do"},

	{"dnsserver/cookie", nil, "what a client's cookie is worth, with no clock of its own"},
	{"dnsserver/tsig", []string{"dnsserver/wire"}, "who has signed a message, with no clock of its own"},
	{"dnsserver", []string{"dnsserver/wire", "dnsserver/cookie", "dnsserver/tsig", "lb/proxyproto"}, "sockets; what to answer is handed in as a Handler; the PROXY header is one for all"},
	{"dnsserver/presentation", nil, "responses as people read them"},
	{"dnsserver/authority", []string{"dnsserver", "dnsserver/wire", "dnsserver/presentation", "zones"}, "answers from zones, whatever they come from"},
	{"dnsserver/doh", []string{"dnsserver", "dnsserver/wire", "dnsserver/presentation", "lb/proxyproto"}, "HTTP in front of the server's one path"},
	{"dnsserver/doq", []string{"dnsserver", "dnsserver/wire", "lb/proxyproto"}, "QUIC in front of the server's one path"},
	{"dnsserver/push", []string{"dnsserver", "dnsserver/wire", "zones"}, "what zones say is told when it changes"},
	{"dnsserver/notify", []string{"dnsserver/tsig", "dnsserver/wire", "zones"}, "tells other servers of serial numbers, which takes a clock"},
	{"dnsserver/dnstest", []string{"dnsserver", "dnsserver/wire", "dnsserver/doh", "dnsserver/doq"}, "an in-process server for tests, over every transport"},

	{"cmd/muster", []string{"cmd/internal/cli", "cmd/internal/app", "cmd/internal/handover"}, "hands the composition root to the command tree"},
	{"cmd/internal/api", []string{"registry", "health"}, "the JSON words of the admin API, shared by server and client"},
	{"cmd/internal/metrics", nil, "shows what it is handed"},
	{"cmd/internal/handover", nil, "sockets between processes, whatever they are for"},
	{"cmd/internal/app", []string{"*"}, "the composition root"},
	{"cmd/internal/*", []string{"*"}, "decodes and shows what all packages have"},

	{"integration/*", []string{"integration/*", "dnsserver/dnstest"}, "black-box tests use the binary as a user would"},
}

// wiring are the packages that only the named ones may import.
var wiring = map[string][]string{
	"cmd/internal/app": {"cmd/muster"}, // the command tree is handed it
	"cmd/internal/cli": {"cmd/muster"},
}

// matches reports whether pkg is what pattern says.
func matches(pattern, pkg string) bool {
	if dir, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(pkg, dir)
	}
	return pattern == pkg
}

// rowFor finds the most specific row of a package.
func rowFor(pkg string) (importRow, bool) {
	var best importRow
	for _, r := range ours {
		if matches(r.pkg, pkg) && len(r.pkg) > len(best.pkg) {
			best = r
		}
	}
	return best, best.pkg != ""
}

func TestImports_FollowTheTable(t *testing.T) {
	s := load(t)
	for f := range s.product {
		row, ok := rowFor(f.pkg)
		if !ok {
			t.Errorf("%s: package %q has no row in the import table", f.path, f.pkg)
			continue
		}
		for _, imported := range f.imports {
			pkg, own := strings.CutPrefix(imported, modulePath+"/")
			if !own {
				continue
			}
			if !slices.ContainsFunc(row.may, func(p string) bool { return matches(p, pkg) }) {
				t.Errorf("%s imports %s; %s may import %v (%s)", f.path, pkg, f.pkg, row.may, row.why)
			}
			if by, ok := wiring[pkg]; ok && !slices.Contains(by, f.pkg) {
				t.Errorf("%s imports %s, which only %v may", f.path, pkg, by)
			}
		}
	}
}

func TestImports_NoRowIsWithoutAPackageOrAReason(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range ours {
		if r.why == "" {
			t.Errorf("row %s gives no reason", r.pkg)
		}
		if seen[r.pkg] {
			t.Errorf("row %s stands twice", r.pkg)
		}
		seen[r.pkg] = true
	}
}

// home says which packages may import a third-party module.
type home struct {
	module string   // import path or a prefix of it
	pkgs   []string // packages; with a last "/*" everything below it
	tests  bool     // tests of all packages may import it too
	why    string
}

// homes is every third-party module that our source imports. A module without
// a row fails: adding a dependency means saying here what for and where.
var homes = []home{
	{"github.com/miekg/dns", []string{"zones/zonefile", "dnsserver/authority", "dnsserver/presentation", "dnsserver/notify", "dnsserver/doh", "dnsserver/dnstest", "integration/*"}, true, "master files; transfers and NOTIFY; answers in JSON; the oracle of tests"},
	{"github.com/chromedp/chromedp", []string{"integration/*"}, true, "a real browser before the console"},
	{"github.com/quic-go/quic-go", []string{"dnsserver/doq", "dnsserver/dnstest"}, true, "DNS over QUIC"},
	{"golang.org/x/net/http2", []string{"dnsserver/doh"}, true, "frames and header compression of DNS over HTTPS"},
	{"golang.org/x/net/dns/dnsmessage", []string{"cmd/internal/cli"}, false, "muster query prints what any server answered"},
	{"go.etcd.io/etcd/client/v3", []string{"registry/etcd", "integration/*"}, true, "the etcd client; black-box tests speak to etcd as a user's program would"},
	{"go.etcd.io/etcd/api/v3", []string{"registry/etcd"}, true, "the etcd client's errors and messages"},
	{"go.etcd.io/etcd/server/v3", []string{"registry/etcd/embedded"}, false, "the embedded etcd server"},
	{"go.uber.org/zap", []string{"registry/etcd", "registry/etcd/embedded", "integration/*"}, false, "etcd logs through zap; both bridge it to slog, and black-box tests drop it"},
	{"google.golang.org/grpc", []string{"health/probe", "registry/etcd"}, true, "grpc.health.v1 checks; when the etcd client makes a connection, which it does not tell"},
	{"golang.org/x/sys", []string{"dnsserver", "lb/l4", "lb/kernel", "lb/kernel/*"}, false, "recvmmsg, sendmmsg and socket options; epoll and splice; what netlink and raw sockets are told"},
	{"github.com/google/nftables", []string{"lb/kernel/nat"}, false, "the tables of the NAT data plane"},
	{"github.com/mdlayher/netlink", []string{"lb/kernel/nat"}, false, "conntrack, and the buffers of nftables' sockets"},
	{"github.com/cilium/ebpf", []string{"lb/kernel/dsr", "lb/kernel/kerneltest"}, false, "the program of direct server return"},
	{"github.com/vishvananda/netlink", []string{"lb/kernel/*"}, false, "interfaces, addresses, routes and neighbours"},
	{"github.com/vishvananda/netns", []string{"lb/kernel/kerneltest"}, false, "tests enter the network namespaces that they make"},
	{"golang.org/x/sync", []string{"cmd/internal/app"}, false, "the group that the server's parts run in"},
	{"github.com/spf13/viper", []string{"cmd/internal/config"}, false, "file, environment and flags in one"},
	{"github.com/spf13/pflag", []string{"cmd/internal/config", "cmd/internal/cli"}, false, "flags, with cobra"},
	{"github.com/spf13/cobra", []string{"cmd/internal/cli"}, false, "the command tree"},
	{"go.yaml.in/yaml/v3", []string{"cmd/internal/*"}, false, "YAML nodes with line and column; -o yaml"},
	{"github.com/fsnotify/fsnotify", []string{"cmd/internal/*"}, false, "a changed configuration file is read again"},
	{"github.com/prometheus/client_golang", []string{"cmd/internal/metrics"}, false, "the exposition format"},
	{"github.com/coredns/coredns", []string{"integration/coredns"}, false, "a module of its own: CoreDNS before Muster, for tests"},
	{"go.uber.org/goleak", nil, true, "no goroutine outlives its Run"},
	{"github.com/google/go-cmp", []string{"registry/registrytest", "dnsserver/dnstest"}, true, "differences that a person can read"},
	{"pgregory.net/rapid", []string{"registry/registrytest"}, true, "property tests"},
	{"github.com/rogpeppe/go-internal", []string{"integration/*"}, true, "script tests"},
}

// homeOf finds the row of an imported package.
func homeOf(imported string) *home {
	for i, h := range homes {
		if under(imported, h.module) {
			return &homes[i]
		}
	}
	return nil
}

func TestImports_EachModuleHasOneHome(t *testing.T) {
	s := load(t)
	for _, f := range s.gos {
		for _, imported := range f.imports {
			first, _, _ := strings.Cut(imported, "/")
			if !strings.Contains(first, ".") || under(imported, modulePath) {
				continue // standard library, or our own
			}
			h := homeOf(imported)
			switch {
			case h == nil:
				t.Errorf("%s imports %s, a module without a row in the table of homes", f.path, imported)
			case f.test && h.tests:
			case !slices.ContainsFunc(h.pkgs, func(p string) bool { return matches(p, f.pkg) }):
				t.Errorf("%s imports %s, which lives in %v (%s)", f.path, imported, h.pkgs, h.why)
			}
		}
	}
}

func TestImports_NoCgo(t *testing.T) {
	s := load(t)
	for _, f := range s.gos {
		if slices.Contains(f.imports, "C") {
			t.Errorf("%s uses cgo; the binary is static", f.path)
		}
	}
}
