package admin

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// domainOf is the name that clients ask for.
func domainOf(info *pool.ServiceInfo) string { return info.Name + "." + info.Zone }

// plural says "1 thing does" or "3 things do".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// serviceOf is a service as the API shows it, without its instances.
func serviceOf(info *pool.ServiceInfo) api.Service {
	p := &info.Policy
	out := api.Service{
		Zone: info.Zone, Name: info.Name, Domain: domainOf(info),
		Policy: p.Policy, HashOn: p.HashOn, TTL: api.Duration(p.TTL), MaxAnswers: max(p.MaxAnswers, 0),
		Fail: p.Fail, Spill: p.Spill, ProxyPolicy: p.ProxyPolicy, HashBound: p.HashBound, VIP: p.VIP, Failover: p.Failover, Standin: info.Standin,
		Mode: modeOf(info), Frozen: info.Frozen != nil, LastFailure: failureOf(info.LastFailure), WorstFailure: failureOf(info.WorstFailure),
		Counts: api.Counts{
			Total: info.Counts.Total, Serving: info.Counts.In,
			Passing: info.Counts.Passing, Failing: info.Counts.Failing, Unknown: info.Counts.Unknown,
			Drain: info.Counts.Drain, Maintenance: info.Counts.Maintenance,
		},
	}
	if p.PanicThreshold != nil {
		out.PanicThreshold = *p.PanicThreshold
	}
	if p.SlowStart != nil {
		out.SlowStart = api.Duration(*p.SlowStart)
	}
	for i := range p.Checks {
		out.Checks = append(out.Checks, checkLine(&p.Checks[i]))
	}
	return out
}

// failureOf is a measured failure as the API shows it; nil of nil.
func failureOf(f *pool.Failure) *api.Failure {
	if f == nil {
		return nil
	}
	return &api.Failure{
		Instance: f.Instance, At: f.At, Cause: f.Label(), What: f.String(),
		Wrong: api.Duration(f.Wrong), Bound: api.Duration(f.Bound), Cached: api.Duration(f.Cached),
	}
}

// checkLine is a check of a policy in one line: "http /healthz every 2s".
func checkLine(c *registry.Check) string {
	line := c.Type
	if c.Port != "" {
		line += " :" + c.Port
	}
	if c.Path != "" {
		line += " " + c.Path
	}
	if c.Interval > 0 {
		line += " every " + c.Interval.String()
	}
	return line
}

// instancesOf is the instances of a service as the API shows them.
func instancesOf(info *pool.ServiceInfo) []api.Instance {
	out := make([]api.Instance, 0, len(info.Instances))
	for i := range info.Instances {
		out = append(out, instanceOf(info, &info.Instances[i]))
	}
	return out
}

func instanceOf(info *pool.ServiceInfo, in *pool.InstanceInfo) api.Instance {
	out := api.Instance{
		Zone: info.Zone, Service: info.Name, ID: in.ID, Domain: in.ID + "." + domainOf(info),
		Addresses: in.Addresses, Port: in.Port, Weight: in.Weight, Effective: in.EffectiveWeight,
		Priority: in.Priority, Tags: in.Tags, Meta: in.Meta, Region: in.Region, Locality: in.Zone,
		TTL: api.Duration(in.TTL), Leased: in.Leased,
		Serving: in.In, Cached: roundUp(in.Cached), Why: whyOf(in), Health: in.Health, Since: in.Since, Admin: adminOf(in.Admin),
	}
	for _, p := range in.Ports {
		if out.Ports == nil {
			out.Ports = make(map[string]string, len(in.Ports))
		}
		out.Ports[p.Name] = fmt.Sprintf("%d/%s", p.Number, p.Proto)
	}
	if l := in.Load; l != nil {
		out.Load = &api.Load{Load: l.Load, Active: l.Active, Capacity: l.Capacity, At: l.At, Stale: in.LoadStale}
	}
	for i := range in.Checks {
		out.Checks = append(out.Checks, checkOf(&in.Checks[i]))
	}
	return out
}

// roundUp is a time in whole tenths of a second: no less than it is.
func roundUp(d time.Duration) api.Duration {
	const step = 100 * time.Millisecond
	return api.Duration((d + step - 1).Truncate(step))
}

// whyOf says why an instance is in or out, with what its failing check found.
func whyOf(in *pool.InstanceInfo) string {
	if in.Health != health.Failing || !strings.HasPrefix(in.Why, health.Failing.String()) {
		return in.Why
	}
	for i := range in.Checks {
		if st := &in.Checks[i].Status; st.State == health.Failing && st.Output != "" {
			return in.Why + ": " + st.Output
		}
	}
	return in.Why
}

func adminOf(a *registry.Admin) *api.Admin {
	if a == nil {
		return nil
	}
	return &api.Admin{
		State: api.AdminState(a.State.String()), Reason: a.Reason, By: a.By, Since: a.Since, Until: a.Until,
		All: a.Instance == registry.AllInstances,
	}
}

func checkOf(c *pool.CheckInfo) api.Check {
	t, st := &c.Target, &c.Status
	out := api.Check{
		Type: t.Type.String(), Target: targetOf(t), State: st.State, Since: st.Since, Last: st.Last,
		Output: st.Output, Latency: api.Duration(st.Latency), Failures: st.Failures,
		Interval: api.Duration(t.Interval), Timeout: api.Duration(t.Timeout), Rise: t.Rise, Fall: t.Fall,
	}
	for _, h := range st.History {
		out.History = append(out.History, api.Transition(h))
	}
	return out
}

// targetOf is what a check asks, as a person would write it.
func targetOf(t *health.Target) string {
	switch t.Type {
	case health.TypeHTTP, health.TypeHTTPS:
		return t.Type.String() + "://" + t.Addr.String() + t.Path
	case health.TypeDNS:
		return t.Addr.String() + " " + t.Name + " " + t.Record
	case health.TypeGRPC:
		return t.Addr.String() + " " + t.Service
	case health.TypeTTL:
		return "heartbeats"
	case health.TypeExec:
		return strings.ReplaceAll(strings.TrimSuffix(t.Command, "\x00"), "\x00", " ")
	case health.TypeHeld:
		return t.Addr.String() + t.Path
	case health.TypeTCP, health.TypeNone:
		return t.Addr.String()
	default:
		return t.Addr.String()
	}
}
