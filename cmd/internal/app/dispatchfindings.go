package app

import (
	"fmt"
	"slices"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/lb/dispatch"
)

// ejectedListed bounds the ejected instances that are told one by one.
const ejectedListed = 20

// dispatchFindings are instances that the proxy has ejected, and routes that name
// what to hash where nothing is hashed.
func (s *server) dispatchFindings() []api.Finding {
	list := s.proxies.dispatch.Info()
	var out []api.Finding
	for i := range list {
		info := &list[i]
		for n := range info.Instances {
			if in := &info.Instances[n]; in.Ejected && len(out) < ejectedListed {
				out = append(out, api.Finding{
					Severity: api.SeverityWarning, Subject: fmt.Sprintf("instance %s/%s", info.Ref.Service, in.ID),
					Problem: fmt.Sprintf("this server's proxy has ejected it: its requests failed, %d of %d", in.Failures, in.Total),
					Mend:    "see what it answers, and have its checks see it too; it returns when a request to it goes well",
				})
			}
		}
	}
	for _, r := range mergeRoutes(s.routeLists()) {
		if r.HashOn == "" {
			continue
		}
		of := func(info dispatch.Info) bool {
			return info.Ref.Service == r.Service && (r.Zone == "" || s.zoneOf(&info) == r.Zone) && info.Policy != "" && info.Policy != "hash"
		}
		if n := slices.IndexFunc(list, of); n >= 0 {
			out = append(out, api.Finding{
				Severity: api.SeverityWarning, Subject: "route " + r.Name,
				Problem: fmt.Sprintf("hash_on has no effect: instances of %s are chosen by policy %s", r.Service, list[n].Policy),
				Mend:    fmt.Sprintf("muster service set %s --proxy-policy hash, or take hash_on out", r.Service),
			})
		}
	}
	return out
}
