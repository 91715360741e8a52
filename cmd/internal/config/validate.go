package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/musterdns/muster/lb/pool"
)

// Validate checks what concerns several keys together; Load has checked each
// for itself. Who changes a Config after Load may check it again.
func (c *Config) Validate() Problems {
	v := &validator{c: c}
	v.listeners()
	v.zones()
	v.registry()
	v.health()
	v.services()
	v.admin()
	v.forward()
	v.access()
	v.keys()
	v.localities()
	v.proxy()
	return v.problems
}

type validator struct {
	c        *Config
	problems Problems
}

func (v *validator) bad(key, reason, mend string) {
	v.problems = append(v.problems, Problem{Origin: v.c.where[key], Key: key, Reason: reason, Mend: mend})
}

// badBeside adds a problem of two keys that do not go together. It stands where
// key was written or, when that is a default, where other was.
func (v *validator) badBeside(key, other, reason, mend string) {
	v.bad(key, reason, mend)
	v.movedTo(other)
}

// movedTo gives the problem just added the place of a key, if it has none.
func (v *validator) movedTo(key string) {
	if last := &v.problems[len(v.problems)-1]; last.Origin == (Origin{}) {
		last.Origin = v.c.where[key]
	}
}

func (v *validator) warn(key, reason, mend string) {
	v.problems = append(v.problems, Problem{Origin: v.c.where[key], Key: key, Reason: reason, Mend: mend, Warning: true})
}

// listeners checks that no address is listened at twice.
func (v *validator) listeners() {
	if len(v.c.DNS.Listen) == 0 {
		v.bad("dns.listen", "is empty", "name at least one address, such as 127.0.0.1:5300")
	}
	type socket struct {
		udp  bool
		both bool // [::] is for IPv4, too
		at   netip.AddrPort
		key  string
	}
	var taken []socket
	take := func(key string, a netip.AddrPort, udp bool) (free bool) {
		if a.Port() == 0 { // a free one each time
			return true
		}
		// DNS takes the families apart, UDP's sockets stand beside each other.
		both := !udp && a.Addr() == netip.IPv6Unspecified() && !strings.HasPrefix(key, "dns.")
		for _, o := range taken {
			if o.udp == udp && (clash(o.at, a) || o.at.Port() == a.Port() && (o.both && a.Addr().Is4() || both && o.at.Addr().Is4())) {
				v.badBeside(key, o.key, fmt.Sprintf("%q: is listened at already, by %s", a, o.key), "choose another port")
				return false
			}
		}
		taken = append(taken, socket{udp, both, a, key})
		return true
	}
	for i, a := range v.c.DNS.Listen {
		_ = take(index("dns.listen", i), a, false) && take(index("dns.listen", i), a, true)
	}
	for _, t := range []struct {
		key  string
		list []netip.AddrPort
		udp  bool
	}{{"dns.tls", v.c.DNS.TLS, false}, {"dns.https", v.c.DNS.HTTPS, false}, {"dns.quic", v.c.DNS.QUIC, true}} {
		for i, a := range t.list {
			take(index(t.key, i), a, t.udp)
		}
		if len(t.list) > 0 && len(v.c.DNS.Certificates) == 0 {
			v.bad(t.key, "needs a certificate", "name files in dns.certificates")
		}
	}
	v.certificates("dns.certificates", v.c.DNS.Certificates)
	take("admin.listen", v.c.Admin.Listen, false)
	for i, l := range v.c.Proxy.Listeners {
		if l.Mode.Kernel() && l.Listen.Addr().IsUnspecified() {
			continue // which is told for itself
		}
		take(index("proxy.listeners", i)+".listen", l.Listen, l.Mode == ModeUDP || l.Protocol == ProtocolUDP)
	}
	if v.c.Registry.Mode == RegistryEmbedded {
		take("registry.embedded.listen", v.c.Registry.Embedded.Listen, false)
	}
}

// clash reports whether two sockets cannot be bound beside each other: at one
// address, or one of them at every address of the family (0.0.0.0 or ::).
func clash(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() || a.Addr().Is4() != b.Addr().Is4() {
		return false
	}
	return a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified()
}

func (v *validator) registry() {
	r := v.c.Registry
	if r.MaxStale != 0 && r.MaxStale < r.StaleAfter {
		v.badBeside("registry.max_stale", "registry.stale_after", fmt.Sprintf("%q: is less than registry.stale_after, %s", short(r.MaxStale), short(r.StaleAfter)), "make it more, or 0s")
	}
	if r.Mode == RegistryEmbedded {
		if a := r.Embedded.Listen.Addr(); !a.IsLoopback() {
			v.warn("registry.embedded.listen", fmt.Sprintf("%q: the embedded etcd asks nobody for a password: whoever reaches it can write", r.Embedded.Listen), "listen at 127.0.0.1, or use mode etcd")
		}
		if !slices.Equal(r.Etcd.Endpoints, []string{etcdDefault}) {
			v.warn("registry.etcd.endpoints", "has no effect: registry.mode is embedded", "set registry.mode to etcd")
		}
		return
	}
	e := r.Etcd
	if len(e.Endpoints) == 0 {
		v.bad("registry.etcd.endpoints", "is empty", "name at least one URL, such as https://etcd-1:2379")
	}
	for i, s := range e.Endpoints {
		u, err := url.Parse(s)
		if err == nil && u.Scheme == "http" && !loopback(u.Hostname()) && !e.Insecure {
			v.bad(index("registry.etcd.endpoints", i), quote(s)+": plain http to another host: whoever is on the way can read and change everything", "use https, or set registry.etcd.insecure to true")
		}
	}
	v.pair("registry.etcd.username", e.Username, "registry.etcd.password_file", e.PasswordFile)
	v.pair("registry.etcd.cert", e.Cert, "registry.etcd.key", e.Key)
}

// pair checks that two keys are set together or not at all.
func (v *validator) pair(keyA, a, keyB, b string) {
	switch {
	case a != "" && b == "":
		v.bad(keyA, quote(a)+": needs "+keyB+" beside it", "")
	case a == "" && b != "":
		v.bad(keyB, quote(b)+": needs "+keyA+" beside it", "")
	}
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func (v *validator) health() {
	h := v.c.Health.Defaults
	if h.Timeout > h.Interval {
		v.badBeside("health.defaults.timeout", "health.defaults.interval", fmt.Sprintf("%q: is more than health.defaults.interval, %s: checks would overlap", short(h.Timeout), short(h.Interval)), "make it at most the interval")
	}
	if h.FastInterval > h.Interval {
		v.badBeside("health.defaults.fast_interval", "health.defaults.interval", fmt.Sprintf("%q: is more than health.defaults.interval, %s", short(h.FastInterval), short(h.Interval)), "make it at most the interval")
	}
}

func (v *validator) admin() {
	if a := v.c.Admin; a.Pprof && !a.Listen.Addr().IsLoopback() {
		v.warn("admin.pprof", "profiles of the process are shown to whoever reaches "+a.Listen.String(), "listen at 127.0.0.1, or set it to false")
	}
}

func (v *validator) forward() {
	for i, u := range v.c.Forward.Upstreams {
		if u.Addr().IsUnspecified() || u.Port() == 0 {
			v.bad(index("forward.upstreams", i), fmt.Sprintf("%q: names no resolver", u), "write its address, such as 9.9.9.9:53")
		}
		self := func(l netip.AddrPort) bool {
			return l == u || l.Port() == u.Port() && l.Addr().IsUnspecified() && u.Addr().IsLoopback()
		}
		if slices.ContainsFunc(v.c.DNS.Listen, self) {
			v.bad(index("forward.upstreams", i), fmt.Sprintf("%q: is this server itself: questions would go in a circle", u), "name another resolver")
		}
	}
}

func (v *validator) access() {
	seen := map[string]bool{}
	rules := 0
	for i, a := range v.c.Access {
		if !v.accessKeys(i, a) {
			continue
		}
		rules++
		if seen[a.Zone] {
			v.bad(index("access", i)+".zone", quote(a.Zone)+": is there twice", "put the networks into one entry")
		}
		seen[a.Zone] = true
		v.accessFits(i, a)
	}
	if !seen["*"] && (rules > 0 || len(v.c.Access) == 0) {
		for i, z := range v.c.Zones {
			covered := slices.ContainsFunc(v.c.Access, func(a Access) bool { return inside(z.Name, a.Zone) })
			if !covered {
				v.warn(index("zones", i)+".name", quote(z.Name)+": no entry of access fits it: nobody may ask", `add one, or {zone: "*", allow: [...]}`)
				v.movedTo("access")
			}
		}
	}
}

// accessKeys checks that an entry has the keys of what it is for, and reports whether
// that is questions.
func (v *validator) accessKeys(i int, a Access) (rule bool) {
	at := index("access", i)
	switch {
	case a.Zone == "" && a.Transfer == "":
		v.bad(at, "neither zone nor transfer is there", "name the zone that it is about")
	case a.Zone != "" && a.Transfer != "":
		v.bad(at+".transfer", "is there beside zone", "make two entries of it")
	case a.Transfer != "":
		if len(a.Allow) == 0 && a.TSIG == "" {
			v.bad(at, "neither allow nor tsig is there: nobody could transfer", "name networks, a key, or both")
		}
		v.key(at+".tsig", a.TSIG)
	default:
		if _, ok := v.c.where[at+".allow"]; !ok {
			v.bad(at, "allow is missing", "list the networks that may ask; []: nobody")
		}
		if a.TSIG != "" {
			v.bad(at+".tsig", "has no effect: it is for transfers", "take it out")
		}
		return true
	}
	return false
}

// key checks that a key of transaction signatures is there.
func (v *validator) key(at, name string) {
	if name != "" && !slices.ContainsFunc(v.c.Keys, func(k TSIGKey) bool { return k.Name == name }) {
		v.bad(at, quote(name)+": is none of keys", "add it there")
	}
}

// localities checks that each says something, once.
func (v *validator) localities() {
	names := map[[2]string]bool{}
	for i, l := range v.c.Localities {
		at := index("localities", i)
		if l.Region == "" && l.Zone == "" {
			v.bad(at, "neither region nor zone is there", "name one of them")
		}
		if slices.ContainsFunc(v.c.Localities[:i], func(o Locality) bool { return o.CIDR == l.CIDR }) {
			v.bad(at+".cidr", fmt.Sprintf("%q: is there twice", l.CIDR), "keep one")
		}
		names[[2]string{l.Region, l.Zone}] = true
	}
	if len(names) > pool.LocalitiesMax {
		v.bad("localities", fmt.Sprintf("names %d places", len(names)), fmt.Sprintf("name at most %d", pool.LocalitiesMax))
	}
}

// keys checks that no two keys have one name.
func (v *validator) keys() {
	for i, k := range v.c.Keys {
		if slices.ContainsFunc(v.c.Keys[:i], func(o TSIGKey) bool { return o.Name == k.Name }) {
			v.bad(index("keys", i)+".name", quote(k.Name)+": is there twice", "keep one")
		}
	}
}

// accessFits warns of an entry that no question of this server can fit: a slip
// in a zone's name would leave the zone to the entry for every name.
func (v *validator) accessFits(i int, a Access) {
	if a.Zone == "*" || len(v.c.Forward.Upstreams) > 0 {
		return
	}
	names := make([]string, len(v.c.Zones))
	for j, z := range v.c.Zones {
		if names[j] = z.Name; inside(a.Zone, z.Name) || inside(z.Name, a.Zone) {
			return
		}
	}
	v.warn(index("access", i)+".zone", quote(a.Zone)+": has no effect: no zone of this server is there, above it or below it", Suggest(a.Zone, names))
}

// inside reports whether name is zone or lies below it.
func inside(name, zone string) bool {
	return name == zone || zone == "." || strings.HasSuffix(name, "."+zone)
}
