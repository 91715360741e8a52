package admin

import (
	"net/http"
	"net/netip"
	"strconv"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/lb/pool"
)

// targets answers GET /v1/sd/prometheus, for all services or for one.
func (s *Server) targets(r *http.Request) (any, error) {
	q := r.URL.Query()
	infos, err := s.chosen(r.Context(), q.Get(api.ParamZone), q.Get(api.ParamService))
	if err != nil {
		return nil, err
	}
	return targetGroups(infos), nil
}

// targetGroups are the instances in the form of Prometheus's HTTP service
// discovery: all that are registered, healthy or not, since a scraper wants to
// see the ill ones too; __meta_muster_serving tells them apart.
func targetGroups(infos []pool.ServiceInfo) []api.TargetGroup {
	out := []api.TargetGroup{}
	for i := range infos {
		info := &infos[i]
		for j := range info.Instances {
			in := &info.Instances[j]
			if in.Port == 0 {
				continue // nothing to scrape
			}
			out = append(out, api.TargetGroup{
				Targets: []string{netip.AddrPortFrom(in.Addresses[0], in.Port).String()},
				Labels:  targetLabels(info, in),
			})
		}
	}
	return out
}

// targetLabels are the labels for relabelling, in Prometheus's own manner.
func targetLabels(info *pool.ServiceInfo, in *pool.InstanceInfo) map[string]string {
	labels := map[string]string{
		"__meta_muster_service":  info.Name,
		"__meta_muster_domain":   domainOf(info),
		"__meta_muster_instance": in.ID,
		"__meta_muster_health":   in.Health.String(),
		"__meta_muster_serving":  strconv.FormatBool(in.In),
	}
	if in.Zone != "" {
		labels["__meta_muster_zone"] = in.Zone
	}
	if in.Region != "" {
		labels["__meta_muster_region"] = in.Region
	}
	for _, p := range in.Ports {
		labels["__meta_muster_port_"+labelName(p.Name)] = strconv.Itoa(int(p.Number))
	}
	for k, v := range in.Meta {
		labels["__meta_muster_meta_"+labelName(k)] = v
	}
	for _, t := range in.Tags {
		labels["__meta_muster_tag_"+labelName(t)] = "true"
	}
	return labels
}

// labelName makes a Prometheus label name of a word: what is no letter, digit
// or underscore becomes an underscore.
func labelName(s string) string {
	b := []byte(s)
	for i, c := range b {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			b[i] = '_'
		}
	}
	return string(b)
}
