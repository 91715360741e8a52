package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/musterdns/muster/registry"
)

func (v *validator) proxy() {
	p := &v.c.Proxy
	names := map[string]bool{}
	http := map[string]bool{}
	for i := range p.Listeners {
		l, at := &p.Listeners[i], index("proxy.listeners", i)
		if names[l.Name] {
			v.bad(at+".name", quote(l.Name)+": is there twice", "give each listener a name of its own")
		}
		names[l.Name] = true
		http[l.Name] = l.Mode == ModeHTTP || l.Mode == "" // which was not read
		v.serviceZone(at, l.Zone)
		v.listenerTarget(at, l)
		v.listenerMode(at, l)
		v.kernelListener(at, i)
	}
	v.vips()
	ways := v.instanceTLS()
	routes := map[string]bool{}
	for i := range p.Routes {
		r, at := &p.Routes[i], index("proxy.routes", i)
		if routes[r.Name] {
			v.bad(at+".name", quote(r.Name)+": is there twice", "give each route a name of its own")
		}
		routes[r.Name] = true
		v.serviceZone(at, r.Zone)
		for j, name := range r.Listeners {
			if !http[name] {
				v.bad(index(at+".listeners", j), quote(name)+": there is no http listener of that name", "")
			}
		}
		if r.TLS != "" && !ways[r.TLS] {
			v.bad(at+".tls", quote(r.TLS)+": there is nothing of that name in proxy.instance_tls", "")
		}
		if field, ok := errors.AsType[*registry.FieldError](r.Validate()); ok {
			reason := field.Reason
			if field.Value != "" {
				reason = field.Value + ": " + reason
			}
			v.bad(join(at, field.Field), reason, field.Mend)
		}
	}
	if len(p.Routes) > 0 && !slices.ContainsFunc(p.Listeners, func(l Listener) bool { return l.Mode == ModeHTTP || l.Mode == "" }) {
		v.bad("proxy.routes", "have no effect: there is no listener of mode http", "add one, or take them out")
	}
}

// instanceTLS checks the ways of speaking to instances over TLS, and returns
// their names.
func (v *validator) instanceTLS() map[string]bool {
	names := map[string]bool{}
	for i := range v.c.Proxy.InstanceTLS {
		t, at := &v.c.Proxy.InstanceTLS[i], index("proxy.instance_tls", i)
		if names[t.Name] {
			v.bad(at+".name", quote(t.Name)+": is there twice", "give each a name of its own")
		}
		names[t.Name] = true
		if (t.Cert == "") != (t.Key == "") {
			v.bad(at, "cert or key is missing", "name the files of both, or of none")
		}
		if t.Insecure && t.CA != "" {
			v.bad(at+".ca", "has no effect: insecure takes any certificate", "take one out")
		}
	}
	return names
}

// serviceZone checks that services can be found: in the zone named, or in the
// only one.
func (v *validator) serviceZone(at, zone string) {
	known := func(z Zone) bool { return z.Source.Services() && (zone == "" || z.Name == zone) }
	n := 0
	for _, z := range v.c.Zones {
		if known(z) {
			n++
		}
	}
	switch {
	case zone != "" && n == 0:
		v.bad(at+".zone", quote(zone)+": is no service zone", "name one of zones")
	case n == 0:
		v.bad(at, "there is no service zone, and no service to forward to", "add one to zones")
	case n > 1:
		v.bad(at, "zone is missing: several zones have source muster", "name the zone of the service")
	}
}

// certificates checks that each certificate is two files or a secret.
func (v *validator) certificates(at string, list []Certificate) {
	for i, c := range list {
		switch {
		case c.Secret != "" && (c.Cert != "" || c.Key != ""):
			v.bad(index(at, i), "has files and a secret", "keep one")
		case c.Secret == "" && (c.Cert == "" || c.Key == ""):
			v.bad(index(at, i), "cert or key is missing", "name the files of both, or a secret")
		}
	}
}

// listenerTarget checks that a listener knows where to.
func (v *validator) listenerTarget(at string, l *Listener) {
	switch {
	case l.Service == "" && l.Mode != ModeHTTP && len(l.Names) == 0:
		v.bad(at, "service is missing", "name the service to forward to")
	case l.Port != "" && l.Tag != "":
		v.bad(at+".tag", quote(l.Tag)+": beside port it cannot be: instances are chosen by one of them", "take one out")
	}
}

// listenerMode checks that a listener has no keys of other modes.
func (v *validator) listenerMode(at string, l *Listener) {
	only := func(keys []string, modes ...string) {
		if slices.Contains(modes, string(l.Mode)) {
			return
		}
		for _, key := range keys {
			if _, set := v.c.where[at+"."+key]; set {
				v.bad(at+"."+key, fmt.Sprintf("has no effect: mode is %s", l.Mode), "it is for "+strings.Join(modes, " and ")+"; take it out")
			}
		}
	}
	only([]string{"max_connections", "max_per_instance", "connect_timeout", "idle_timeout", "stop_timeout"}, string(ModeTCP), string(ModeUDP), string(ModeHTTP))
	only([]string{"port", "tag"}, string(ModeTCP), string(ModeUDP), string(ModeNAT), string(ModeDSR))
	only([]string{"max_per_client", "on_down", "drain_timeout"}, string(ModeTCP), string(ModeUDP))
	only([]string{"protocol", "affinity"}, string(ModeNAT), string(ModeDSR))
	only([]string{"masquerade"}, string(ModeNAT))
	only([]string{"interface", "attach"}, string(ModeDSR))
	only([]string{"names", "proxy_protocol_from", "proxy_protocol_to", "transparent", "keep_port"}, string(ModeTCP))
	only([]string{"certificates", "trusted", "access_log"}, string(ModeHTTP))
	v.certificates(at+".certificates", l.Certificates)
	if l.KeepPort && !l.Transparent {
		v.bad(at+".keep_port", "has no effect without transparent", "set transparent too, or take it out")
	}
}

// kernelListener checks what listeners of modes nat and dsr must have, alone and
// beside the ones before.
func (v *validator) kernelListener(at string, i int) {
	list := v.c.Proxy.Listeners
	l := &list[i]
	if !l.Mode.Kernel() {
		return
	}
	if l.Listen.Addr().IsUnspecified() || l.Listen.Addr().Is4In6() || l.Listen.Addr().Zone() != "" || l.Listen.Port() == 0 {
		v.bad(at+".listen", quote(l.Listen.String())+": the kernel needs the very address and port that clients connect to", "write them out, as 10.0.0.100:80")
	}
	if l.Mode == ModeDSR && l.Interface == "" {
		v.bad(at, "interface is missing", "name the interface that clients' packets come in on")
	}
	for j := range list[:i] {
		o := &list[j]
		if l.Mode == ModeDSR && o.Mode == ModeDSR && o.Interface == l.Interface && cmp.Or(o.Attach, AttachAuto) != cmp.Or(l.Attach, AttachAuto) {
			v.bad(at, fmt.Sprintf("attach is another than that of listener %s, which is on interface %s too", o.Name, l.Interface), "an interface has one program: give both listeners the same")
		}
	}
}

// vips checks the virtual addresses.
func (v *validator) vips() {
	list := v.c.Proxy.VIPs
	for i := range list {
		at := index("proxy.vips", i)
		if list[i].Interface == "" {
			v.bad(at+".interface", "is empty", "name the interface to have the address on")
		}
		for j := range list[:i] {
			if list[j].Address.Addr() == list[i].Address.Addr() {
				v.bad(at+".address", quote(list[i].Address.Addr().String())+": is there twice", "take one out")
			}
		}
	}
	if len(list) > 0 && !slices.ContainsFunc(v.c.Zones, func(z Zone) bool { return z.Source.Services() }) {
		v.bad("proxy.vips", "there is no service zone: there is no registry to agree in", "add one to zones")
	}
}
