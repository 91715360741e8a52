package config

import (
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
		http[l.Name] = l.Mode == ModeHTTP
		v.serviceZone(at, l.Zone)
		v.listenerTarget(at, l)
		v.listenerMode(at, l)
	}
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
		if field, ok := errors.AsType[*registry.FieldError](r.Validate()); ok {
			reason := field.Reason
			if field.Value != "" {
				reason = field.Value + ": " + reason
			}
			v.bad(join(at, field.Field), reason, field.Mend)
		}
	}
	if len(p.Routes) > 0 && !slices.ContainsFunc(p.Listeners, func(l Listener) bool { return l.Mode == ModeHTTP }) {
		v.bad("proxy.routes", "have no effect: there is no listener of mode http", "add one, or take them out")
	}
}

// serviceZone checks that services can be found: in the zone named, or in the
// only one.
func (v *validator) serviceZone(at, zone string) {
	known := func(z Zone) bool { return z.Source == SourceMuster && (zone == "" || z.Name == zone) }
	n := 0
	for _, z := range v.c.Zones {
		if known(z) {
			n++
		}
	}
	switch {
	case zone != "" && n == 0:
		v.bad(at+".zone", quote(zone)+": is no zone with source muster", "name one of zones")
	case n == 0:
		v.bad(at, "no zone has source muster: there is no service to forward to", "add one to zones")
	case n > 1:
		v.bad(at, "zone is missing: several zones have source muster", "name the zone of the service")
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
	only([]string{"port", "tag", "max_per_client", "on_down", "drain_timeout", "transparent", "keep_port"}, string(ModeTCP), string(ModeUDP))
	only([]string{"names", "proxy_protocol_from", "proxy_protocol_to"}, string(ModeTCP))
	only([]string{"certificates", "trusted", "access_log"}, string(ModeHTTP))
	if l.KeepPort && !l.Transparent {
		v.bad(at+".keep_port", "has no effect without transparent", "set transparent too, or take it out")
	}
}
