package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// zone finds the service zone of a name, with or without its last dot; empty:
// the default.
func (s *Server) zone(name string) (*Zone, error) {
	if len(s.cfg.Zones) == 0 {
		return nil, &api.Error{
			Status: http.StatusNotFound, Field: api.ParamZone, Message: "this server has no service zone",
			Mend: "add one to its configuration: zones: [{name: svc.internal., source: muster}]",
		}
	}
	if name == "" {
		return &s.cfg.Zones[0], nil
	}
	want := strings.ToLower(strings.TrimSuffix(name, ".")) + "."
	var names []string
	for i := range s.cfg.Zones {
		if s.cfg.Zones[i].Name == want {
			return &s.cfg.Zones[i], nil
		}
		names = append(names, s.cfg.Zones[i].Name)
	}
	return nil, &api.Error{
		Status: http.StatusNotFound, Field: api.ParamZone, Message: "no service zone " + quote(name),
		Mend: "there is " + strings.Join(names, ", "),
	}
}

// foldService checks and folds a service's name. A name given with its zone
// ("web.svc.internal.") is taken too.
func foldService(z *Zone, name string) (string, error) {
	if name == "" {
		return "", badField("service", "give the service's name", "is missing")
	}
	name = strings.ToLower(name)
	if short, ok := strings.CutSuffix(strings.TrimSuffix(name, ".")+".", "."+z.Name); ok {
		name = short
	}
	folded, err := registry.FoldService(name)
	if err != nil {
		return "", fieldError("service", err)
	}
	return folded, nil
}

// fieldError makes a client's error of one of package registry.
func fieldError(field string, err error) *api.Error {
	e := &api.Error{Status: http.StatusBadRequest, Field: field, Message: err.Error()}
	if fe, ok := errors.AsType[*registry.FieldError](err); ok {
		shown := *fe
		if shown.Field != "" {
			e.Field = strings.TrimPrefix(field+"."+shown.Field, ".")
		}
		e.Mend = shown.Mend
		shown.Field, shown.Mend = "", ""
		e.Message = shown.Error()
	}
	return e
}

// infos returns the services of a zone (empty: of all) as the pool sees them,
// with their instances or without.
func (s *Server) infos(ctx context.Context, zone string, withInstances bool) ([]pool.ServiceInfo, error) {
	list := s.cfg.Pool.Services
	if withInstances {
		list = s.cfg.Pool.Instances
	}
	all, err := list(ctx)
	if err != nil || zone == "" {
		return all, err
	}
	z, err := s.zone(zone)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(i pool.ServiceInfo) bool { return i.Source != z.Source }), nil
}

// info returns one service.
func (s *Server) info(ctx context.Context, z *Zone, name string) (pool.ServiceInfo, error) {
	info, err := s.cfg.Pool.Service(ctx, z.Source, name)
	if errors.Is(err, pool.ErrNotFound) {
		return info, &api.Error{
			Status: http.StatusNotFound, Field: "service", Message: "no service " + quote(name) + " in zone " + z.Name,
			Mend: "`muster services` lists what there is",
		}
	}
	return info, err
}

// services answers GET /v1/services.
func (s *Server) services(r *http.Request) (any, error) {
	infos, err := s.infos(r.Context(), r.URL.Query().Get(api.ParamZone), false)
	if err != nil {
		return nil, err
	}
	out := api.ServiceList{Services: make([]api.Service, 0, len(infos))}
	for i := range infos {
		out.Services = append(out.Services, serviceOf(&infos[i]))
	}
	return out, nil
}

// service answers GET /v1/services/{name}.
func (s *Server) service(r *http.Request) (any, error) {
	infos, err := s.chosen(r.Context(), r.URL.Query().Get(api.ParamZone), r.PathValue("service"))
	if err != nil {
		return nil, err
	}
	out := serviceOf(&infos[0])
	out.Instances = instancesOf(&infos[0])
	return out, nil
}

// chosen returns the services of a zone (empty: of all), or one by name, with
// their instances.
func (s *Server) chosen(ctx context.Context, zone, service string) ([]pool.ServiceInfo, error) {
	if service == "" {
		return s.infos(ctx, zone, true)
	}
	z, err := s.zone(zone)
	if err != nil {
		return nil, err
	}
	name, err := foldService(z, service)
	if err != nil {
		return nil, err
	}
	info, err := s.info(ctx, z, name)
	return []pool.ServiceInfo{info}, err
}

// instances answers GET /v1/instances.
func (s *Server) instances(r *http.Request) (any, error) {
	q := r.URL.Query()
	infos, err := s.chosen(r.Context(), q.Get(api.ParamZone), q.Get(api.ParamService))
	if err != nil {
		return nil, err
	}
	out := api.InstanceList{Instances: []api.Instance{}}
	for i := range infos {
		out.Instances = append(out.Instances, instancesOf(&infos[i])...)
	}
	return out, nil
}

// doctor answers GET /v1/doctor: the bad records, the services in trouble, and
// what the server as a whole finds, gravest first.
func (s *Server) doctor(r *http.Request) (any, error) {
	out := api.Doctor{Findings: append([]api.Finding{}, s.cfg.Findings(r.Context())...)}
	problems, omitted, err := s.cfg.Pool.Problems(r.Context())
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		f := api.Finding{Severity: api.SeverityError, Subject: quote(p.RawKey), Problem: p.Reason, Mend: p.Mend}
		if p.Used {
			f.Severity = api.SeverityWarning
		}
		out.Findings = append(out.Findings, f)
	}
	if omitted > 0 {
		out.Findings = append(out.Findings, api.Finding{
			Severity: api.SeverityError, Subject: "registry", Problem: plural(omitted, "more bad record is", "more bad records are") + " not listed",
			Mend: "mend those that are",
		})
	}
	infos, err := s.cfg.Pool.Services(r.Context())
	if err != nil {
		return nil, err
	}
	for i := range infos {
		out.Findings = append(out.Findings, findingsOf(&infos[i])...)
	}
	rank := map[api.Severity]int{api.SeverityError: 0, api.SeverityWarning: 1, api.SeverityInfo: 2}
	slices.SortStableFunc(out.Findings, func(a, b api.Finding) int { return rank[a.Severity] - rank[b.Severity] })
	return out, nil
}

// findingsOf says what is wrong with one service.
func findingsOf(info *pool.ServiceInfo) []api.Finding {
	var out []api.Finding
	add := func(sev api.Severity, problem, mend string) {
		out = append(out, api.Finding{Severity: sev, Subject: "service " + domainOf(info), Problem: problem, Mend: mend})
	}
	explain := "see `muster explain " + info.Name + "`"
	switch info.Mode {
	case pool.ModeFailOpen:
		add(api.SeverityError, "no instance is healthy; all that are registered are answered (fail open)", explain)
	case pool.ModeClosed:
		add(api.SeverityError, "no instance is healthy; nothing is answered (fail closed)", explain)
	case pool.ModeTier:
		add(api.SeverityWarning, "a lower tier serves, since the first has lost health", explain)
	case pool.ModeUnknown:
		add(api.SeverityWarning, "no check has a result yet; all instances are answered", "wait for the first round of checks")
	case pool.ModeEmpty:
		if info.Counts.Total > 0 {
			add(api.SeverityWarning, "every instance is drained or in maintenance", "`muster drain "+info.Name+"/INSTANCE --undo` brings one back")
		}
	case pool.ModeNormal, pool.ModeUnset:
		if info.Counts.Failing > 0 {
			add(api.SeverityWarning, plural(info.Counts.Failing, "instance fails its checks", "instances fail their checks"), explain)
		}
	}
	if info.Frozen != nil {
		add(api.SeverityInfo, frozenWords(info.Frozen), "`muster freeze --undo` ends it")
	}
	if warning := crowded(info); warning != "" {
		add(api.SeverityWarning, warning, "ask for KEY._hash."+domainOf(info)+" with a key for each client (hash_on: name), or choose another policy")
	}
	if info.FiltersOmitted > 0 {
		add(api.SeverityWarning, plural(info.FiltersOmitted, "tag, zone or port name has", "tags, zones or port names have")+" no name of its own",
			"use at most 64 a service")
	}
	return out
}

// crowded says that one source makes up most of a hash service's questions;
// empty: none does.
func crowded(info *pool.ServiceInfo) string {
	if info.OneSource == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f %% of the questions come from one source, such as a forwarder, and are all sent to one instance", 100*info.OneSource)
}

// clientOf is the address a request is explained for: the parameter's or the
// caller's own.
func clientOf(r *http.Request) (netip.Addr, error) {
	if given := r.URL.Query().Get(api.ParamClient); given != "" {
		a, err := netip.ParseAddr(given)
		if err != nil {
			return a, badField(api.ParamClient, "give an address such as 10.1.2.3", "%s is no IP address", quote(given))
		}
		return a.Unmap(), nil
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, err
	}
	return from.Addr().Unmap(), nil
}
