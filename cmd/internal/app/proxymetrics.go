package app

import (
	"slices"
	"strconv"

	"github.com/musterdns/muster/cmd/internal/metrics"
	"github.com/musterdns/muster/lb/dispatch"
	"github.com/musterdns/muster/lb/l7"
)

// proxyFamilies are about the companion proxy. Listeners are named in the
// configuration, so that their number is the operator's.
func (s *server) proxyFamilies() []metrics.Family {
	choice := func(name, help string, f func(*dispatch.Stats) float64) metrics.Family {
		return one(name, help, func() float64 { st := s.proxies.dispatch.Stats(); return f(&st) })
	}
	http := func(name, help string, f func(*l7.Stats) float64) metrics.Family {
		kind := one(name, help, nil).Kind
		return metrics.Family{Name: name, Help: help, Kind: kind, Labels: []string{"listener"}, Collect: func(emit metrics.Emit) {
			for _, h := range s.proxies.now.Load().http {
				st := h.proxy.Stats()
				emit(f(&st), h.cfg.Name)
			}
		}}
	}
	families := []metrics.Family{
		choice("muster_proxy_choices_total", "Choices that found an instance.", func(st *dispatch.Stats) float64 { return float64(st.Choices) }),
		choice("muster_proxy_choices_none_total", "Choices that found no instance.", func(st *dispatch.Stats) float64 { return float64(st.None) }),
		choice("muster_proxy_choices_busy_total", "Choices that found every instance at its limit.", func(st *dispatch.Stats) float64 { return float64(st.Busy) }),
		choice("muster_proxy_in_flight", "Requests and connections at instances through the modes http, tcp and udp; muster_proxy_instance_in_flight has those of nat too.", func(st *dispatch.Stats) float64 { return float64(st.Active) }),
		choice("muster_proxy_ejections_total", "Instances ejected as their requests failed.", func(st *dispatch.Stats) float64 { return float64(st.Ejections) }),
		choice("muster_proxy_silences_total", "Silences of instances that have brought their checks nearer.", func(st *dispatch.Stats) float64 { return float64(st.Silences) }),
		choice("muster_proxy_ejected", "Instances that are ejected.", func(st *dispatch.Stats) float64 { return float64(st.Ejected) }),
		http("muster_proxy_http_connections", "Open connections of clients.", func(st *l7.Stats) float64 { return float64(st.Connections) }),
		http("muster_proxy_http_requests_total", "Requests.", func(st *l7.Stats) float64 { return float64(st.Requests) }),
		http("muster_proxy_http_retries_total", "Requests sent to another instance.", func(st *l7.Stats) float64 { return float64(st.Retries) }),
		http("muster_proxy_http_limited_total", "Requests refused by a route's limit.", func(st *l7.Stats) float64 { return float64(st.Limited) }),
		http("muster_proxy_http_limit_evictions_total", "Clients that were let off a route's limit, as there were too many to remember.", func(st *l7.Stats) float64 { return float64(st.Forgotten) }),
		http("muster_proxy_http_refused_total", "Requests answered by the proxy itself.", func(st *l7.Stats) float64 { return float64(st.Refused) }),
		http("muster_proxy_http_malformed_total", "Requests refused as malformed.", func(st *l7.Stats) float64 { return float64(st.Malformed) }),
		http("muster_proxy_http_tunnels", "Upgraded connections (WebSockets).", func(st *l7.Stats) float64 { return float64(st.Tunnels) }),
		{
			Name: "muster_proxy_http_responses_total", Help: "Responses by the class of their status; 0xx: the client had left.", Kind: metrics.Counter,
			Labels: []string{"listener", "class"}, Collect: func(emit metrics.Emit) {
				for _, h := range s.proxies.now.Load().http {
					st := h.proxy.Stats()
					for class, n := range st.Responses {
						emit(float64(n), h.cfg.Name, strconv.Itoa(class)+"xx")
					}
				}
			},
		},
	}
	return slices.Concat(families, s.instanceFamilies(), s.streamFamilies(), s.kernelFamilies())
}
