package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// Reply is what a question was answered by the code that answers DNS.
type Reply struct {
	RCode   string   // "NOERROR"
	Answers []string // the answer section, as zone file lines
	Extra   string   // the extended DNS error's text; empty: none
}

// explain answers GET /v1/explain.
func (s *Server) explain(r *http.Request) (any, error) {
	q := r.URL.Query()
	name := strings.ToLower(q.Get(api.ParamName))
	if name == "" {
		return nil, badField(api.ParamName, "give a name such as web or web.svc.internal", "is missing")
	}
	client, err := clientOf(r)
	if err != nil {
		return nil, err
	}
	out := api.Explanation{Name: s.absolute(name), Type: "A", Client: client}
	if t := q.Get(api.ParamType); t != "" {
		out.Type = strings.ToUpper(t)
	}
	reply, err := s.cfg.Ask(out.Name, out.Type, client)
	if err != nil {
		return nil, badField(api.ParamName, "give a domain name and a type such as A, AAAA, SRV, TXT", "%v", err)
	}
	out.Records = reply.Answers
	out.Outcome = reply.RCode
	if reply.RCode == "NOERROR" && len(reply.Answers) == 0 {
		out.Outcome = "NODATA"
	}
	if err := s.explainService(r.Context(), &out); err != nil {
		return nil, err
	}
	countPicked(&out)
	out.Why = whyOutcome(&out, reply.Extra)
	return out, nil
}

// absolute completes a name: one that ends in a dot, or lies in a zone of this
// server, is absolute; any other is relative to the default zone.
func (s *Server) absolute(name string) string {
	if strings.HasSuffix(name, ".") {
		return name
	}
	for _, zone := range s.cfg.ZoneNames() {
		if name+"." == zone || strings.HasSuffix(name+".", "."+zone) {
			return name + "."
		}
	}
	if len(s.cfg.Zones) == 0 {
		return name + "."
	}
	return name + "." + s.cfg.Zones[0].Name
}

// explainService fills in what the name's service says, if it has one.
func (s *Server) explainService(ctx context.Context, out *api.Explanation) error {
	z, relative := s.enclosing(out.Name)
	if z == nil {
		return nil
	}
	out.Zone = z.Name
	labels := strings.Split(relative, ".")
	for i := range labels {
		info, err := s.cfg.Pool.Service(ctx, z.Source, strings.Join(labels[i:], "."))
		if errors.Is(err, pool.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		describe(out, &info, labels[:i])
		if err := s.explainRecords(ctx, out, z, info.Name); err != nil {
			return err
		}
		if err := s.explainStandin(ctx, out, &info, labels[:i]); err != nil {
			return err
		}
		if i == 0 && s.cfg.Near != nil {
			out.Near = s.cfg.Near(z.Source, info.Name, out.Client)
			nearShares(out, &info)
		}
		return nil
	}
	// In the manner of RFC 2782: _web._tcp is the service web, _web._tcp.prod web.prod.
	if len(labels) >= 2 && len(labels[0]) > 1 && labels[0][0] == '_' && (labels[1] == "_tcp" || labels[1] == "_udp") {
		name := strings.Join(append([]string{labels[0][1:]}, labels[2:]...), ".")
		info, err := s.cfg.Pool.Service(ctx, z.Source, name)
		if err != nil && !errors.Is(err, pool.ErrNotFound) {
			return err
		}
		if err == nil {
			describe(out, &info, nil)
		}
		return s.explainRecords(ctx, out, z, name)
	}
	return s.explainRecords(ctx, out, z, relative)
}

// recordsMax is the number of records that an explanation has a warning of.
const recordsMax = 10

// explainRecords warns of the records of a service that cannot be used, or not all of them.
func (s *Server) explainRecords(ctx context.Context, out *api.Explanation, z *Zone, service string) error {
	space, err := registry.NewKeyspace(z.Prefix)
	if err != nil {
		return err
	}
	problems, _, err := s.cfg.Pool.Problems(ctx)
	if err != nil {
		return err
	}
	more := 0
	for _, p := range problems {
		key, ok, err := space.Parse(p.RawKey)
		if !ok || err != nil || p.Source != z.Source || key.Service != service {
			continue
		}
		if len(out.Warnings) >= recordsMax {
			more++
			continue
		}
		text := p.RawKey + " cannot be used: " + p.Reason
		if p.Used {
			text = p.RawKey + ": " + p.Reason
		}
		if p.Mend != "" {
			text += ": " + p.Mend
		}
		out.Warnings = append(out.Warnings, text)
	}
	if more > 0 {
		out.Warnings = append(out.Warnings, plural(more, "more record has", "more records have")+" problems: `muster doctor` lists them")
	}
	return nil
}

// explainStandin fills in what the service says that is answered in a service's place.
func (s *Server) explainStandin(ctx context.Context, out *api.Explanation, of *pool.ServiceInfo, below []string) error {
	z, name := s.enclosing(of.Standin)
	if z == nil || len(below) == 1 && !strings.HasPrefix(below[0], "_") {
		return nil // an instance's own name is of itself
	}
	info, err := s.cfg.Pool.Service(ctx, z.Source, name)
	if errors.Is(err, pool.ErrNotFound) {
		return nil // it has gone since
	}
	if err != nil {
		return err
	}
	describe(out, &info, below)
	out.Service, out.Standin = of.Name, of.Standin
	return nil
}

// countPicked says how many instances the answer has; what it is when nothing
// is picked concerns no one.
func countPicked(out *api.Explanation) {
	picked := 0
	switch out.Type {
	case "SRV":
		picked = len(out.Records)
	case "A", "AAAA":
		for i := range out.Instances {
			if slices.ContainsFunc(out.Instances[i].Addresses, func(a netip.Addr) bool {
				return slices.ContainsFunc(out.Records, func(r string) bool { return strings.HasSuffix(r, " "+a.String()) })
			}) {
				picked++
			}
		}
		picked = min(picked, len(out.Records)) // instances may share an address
	}
	if out.Answers = picked; picked == 0 {
		out.TTL, out.TTLWhy, out.Detection = 0, "", 0
	}
}

// enclosing finds the service zone of an absolute name, the longest if several
// fit, and the name relative to it; nil when it is in none, or the apex.
func (s *Server) enclosing(name string) (*Zone, string) {
	var best *Zone
	var relative string
	for i := range s.cfg.Zones {
		z := &s.cfg.Zones[i]
		if rel, ok := strings.CutSuffix(name, "."+z.Name); ok && (best == nil || len(z.Name) > len(best.Name)) {
			best, relative = z, rel
		}
	}
	return best, relative
}

// describe fills in the service's part; below are the labels before its name.
func describe(out *api.Explanation, info *pool.ServiceInfo, below []string) {
	out.Service, out.Policy, out.Mode = info.Name, info.Policy.Policy, modeOf(info)
	out.Answers, out.TTL, out.TTLWhy = info.Answers, api.Duration(info.TTL), info.TTLWhy
	out.Detection, out.DetectionWhy = api.Duration(info.Detection), info.DetectionWhy
	out.LastFailure, out.WorstFailure = failureOf(info.LastFailure), failureOf(info.WorstFailure)
	belongs := func(*pool.InstanceInfo) bool { return true }
	out.Filter, belongs = filterOf(info, below, belongs)
	if info.Hidden != "" {
		out.Warnings = append(out.Warnings, "the service is not answered: "+info.Hidden)
	}
	if warning := crowded(info); warning != "" {
		out.Warnings = append(out.Warnings, warning)
	}
	if info.Frozen != nil {
		out.Warnings = append(out.Warnings, frozenWords(info.Frozen))
	}
	if info.Policy.MaxAnswers > 1 && info.Policy.Policy != "round-robin" && unequal(info) {
		out.Warnings = append(out.Warnings, "weights differ and more than one address is answered: "+
			"shares hold only as far as clients choose among them at random; max_answers: auto answers one")
	}
	if len(info.Policy.VIP) > 0 {
		out.Warnings = append(out.Warnings, "A and AAAA are answered with the service's virtual addresses: the shares are those of SRV, and of a proxy there")
	}
	for i := range info.Instances {
		in := &info.Instances[i]
		if !belongs(in) {
			continue
		}
		why := whyOf(in)
		if in.In && in.Load != nil && in.Load.Load >= 0 && info.Policy.Policy == "least-loaded" {
			why += ", load " + strconv.FormatFloat(in.Load.Load, 'f', 2, 64)
		}
		v := api.Verdict{
			ID: in.ID, Addresses: in.Addresses, In: in.In, Why: why, Health: in.Health,
			Priority: in.Priority, Weight: in.Weight, Share: in.Share,
		}
		if in.Admin != nil {
			v.Admin = api.AdminState(in.Admin.State.String())
		}
		out.Instances = append(out.Instances, v)
	}
	if out.Filter != "" {
		rescale(out.Instances)
	}
}

// modeOf is how a service is answered.
func modeOf(info *pool.ServiceInfo) api.Mode {
	if info.Hidden != "" {
		return api.ModeHidden
	}
	return api.Mode(info.Mode.String())
}

// frozenWords says who has frozen the answers, why and until when.
func frozenWords(a *registry.Admin) string {
	words := "health does not move the answers: they are frozen"
	if a.Service == registry.AllServices {
		words += ", like those of all services,"
	}
	if a.By != "" {
		words += " by " + a.By
	}
	if !a.Until.IsZero() {
		words += " until " + a.Until.Format(time.RFC3339)
	}
	if a.Reason != "" {
		words += ": " + a.Reason
	}
	return words
}

// filterOf names the part of the service that the labels before its name
// choose, and says which instances belong to it.
func filterOf(info *pool.ServiceInfo, below []string, all func(*pool.InstanceInfo) bool) (string, func(*pool.InstanceInfo) bool) {
	switch {
	case len(below) == 1 && !strings.HasPrefix(below[0], "_"):
		return "instance " + below[0], func(in *pool.InstanceInfo) bool { return in.ID == below[0] }
	case len(below) == 2 && below[1] == "_tag":
		return "tag " + below[0], func(in *pool.InstanceInfo) bool { return slices.Contains(in.Tags, below[0]) }
	case len(below) == 2 && below[1] == "_zone":
		return "zone " + below[0], func(in *pool.InstanceInfo) bool { return in.Zone == below[0] }
	case len(below) == 2 && below[1] == "_hash":
		return "hash of " + below[0], all
	case len(below) == 2 && strings.HasPrefix(below[0], "_") && (below[1] == "_tcp" || below[1] == "_udp"):
		port, proto := below[0][1:], below[1][1:]
		if port == info.Name {
			return "", all
		}
		return "port " + port, func(in *pool.InstanceInfo) bool {
			for _, p := range in.Ports {
				if p.Name == port && p.Proto == proto {
					return true
				}
			}
			return false
		}
	default:
		return "", all
	}
}

// unequal reports whether the weights of the serving instances differ.
func unequal(info *pool.ServiceInfo) bool {
	first := -1.0
	for i := range info.Instances {
		in := &info.Instances[i]
		if !in.In {
			continue
		}
		if first >= 0 && in.EffectiveWeight != first {
			return true
		}
		first = in.EffectiveWeight
	}
	return false
}

// rescale makes the shares of a part of a service add up to 1.
func rescale(vs []api.Verdict) {
	var sum float64
	for i := range vs {
		sum += vs[i].Share
	}
	if sum == 0 {
		return
	}
	for i := range vs {
		vs[i].Share /= sum
	}
}

// nearShares makes the shares those of a client that is answered by zones.
func nearShares(out *api.Explanation, info *pool.ServiceInfo) {
	if out.Near == nil || out.Standin != "" {
		return
	}
	zone, sums := map[string]string{}, map[string]float64{}
	for i := range info.Instances {
		in := &info.Instances[i]
		zone[in.ID] = in.Zone
		sums[in.Zone] += in.Share
	}
	for i := range out.Instances {
		v := &out.Instances[i]
		if z := zone[v.ID]; v.Share > 0 {
			v.Share *= out.Near[z] / sums[z]
		}
	}
}

// whyOutcome says in one sentence how the outcome comes about.
func whyOutcome(out *api.Explanation, extra string) string {
	serving := 0
	for i := range out.Instances {
		if out.Instances[i].In {
			serving++
		}
	}
	var why string
	switch out.Outcome {
	case "NOERROR":
		why = "a name that no service stands behind"
		if out.Service != "" {
			why = fmt.Sprintf("%d of %s may be answered", serving, plural(len(out.Instances), "instance", "instances"))
		}
	case "NODATA":
		why = "the name exists, but has no records of type " + out.Type
		if out.Service != "" && serving == 0 {
			why = "no instance may be answered"
		}
	case "NXDOMAIN":
		why = "nothing is registered under this name"
		if out.Service != "" {
			why = "the service exists, but nothing of it has this name"
		}
	case "REFUSED":
		why = "the name lies in no zone of this server, or the client may not ask it"
	default:
		why = "the server cannot answer at present"
	}
	if extra != "" {
		why += " (" + extra + ")"
	}
	return why
}
