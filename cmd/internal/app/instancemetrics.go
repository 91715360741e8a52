package app

import (
	"github.com/musterdns/muster/cmd/internal/metrics"
	"github.com/musterdns/muster/lb/dispatch"
)

// instanceSeriesMax bounds the instances that metrics show each by itself: those of
// the services that this proxy forwards to, by zone, service and part, the first
// that many. A series ends when its instance is deregistered or nothing forwards to
// it any more.
const instanceSeriesMax = 1000

// instanceFamilies are about single instances, as this proxy sees them.
func (s *server) instanceFamilies() []metrics.Family {
	each := func(name, help string, f func(*dispatch.InstanceInfo) float64) metrics.Family {
		return metrics.Family{
			Name: name, Help: help, Kind: one(name, help, nil).Kind, Labels: []string{"zone", "service", "part", "instance_id"}, Bound: instanceSeriesMax,
			Collect: func(emit metrics.Emit) {
				list, _ := s.proxies.dispatch.Figures(instanceSeriesMax)
				s.proxies.kernel.carried(list)
				for i := range list {
					zone, part := s.zoneOf(&list[i]), partOf(list[i].Ref)
					for n := range list[i].Instances {
						in := &list[i].Instances[n]
						emit(f(in), zone, list[i].Ref.Service, part, in.ID)
					}
				}
			},
		}
	}
	return []metrics.Family{
		each("muster_proxy_instance_in_flight", "Requests and connections at the instance; those of mode dsr nobody sees the end of, so they are left out.", func(in *dispatch.InstanceInfo) float64 { return float64(in.Active) }),
		each("muster_proxy_instance_requests_total", "Requests, and connections of modes tcp, udp, nat and dsr, to the instance.", func(in *dispatch.InstanceInfo) float64 { return float64(in.Total) }),
		each("muster_proxy_instance_failures_total", "Of those, the failed ones.", func(in *dispatch.InstanceInfo) float64 { return float64(in.Failures) }),
		each("muster_proxy_instance_received_bytes_total", "Octets from clients; of modes nat and dsr with their headers.", func(in *dispatch.InstanceInfo) float64 { return float64(in.BytesIn) }),
		each("muster_proxy_instance_sent_bytes_total", "Octets to clients, as far as they pass through this machine; of mode nat with their headers.", func(in *dispatch.InstanceInfo) float64 { return float64(in.BytesOut) }),
		each("muster_proxy_instance_ejections_total", "Times that the instance was ejected.", func(in *dispatch.InstanceInfo) float64 { return float64(in.Ejections) }),
		each("muster_proxy_instance_ejected", "1: the instance is ejected.", func(in *dispatch.InstanceInfo) float64 {
			if in.Ejected {
				return 1
			}
			return 0
		}),
		each("muster_proxy_instance_share", "The instance's part of the choices while nothing is in flight, 0 to 1.", func(in *dispatch.InstanceInfo) float64 { return in.Share }),
		one("muster_proxy_instances_left_out", "Instances beyond the 1000 that these metrics show.", func() float64 {
			_, n := s.proxies.dispatch.Figures(instanceSeriesMax)
			return float64(n)
		}),
	}
}
