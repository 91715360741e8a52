package app

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/cmd/internal/metrics"
	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
)

// checkCounts counts the probes, by type and outcome.
type checkCounts struct {
	done    [16][2]atomic.Uint64
	nanos   [16]atomic.Uint64
	changed [4]atomic.Uint64
}

// Checked implements health.Metrics.
func (c *checkCounts) Checked(t health.Type, ok bool, took time.Duration) {
	i := 0
	if ok {
		i = 1
	}
	c.done[t&15][i].Add(1)
	c.nanos[t&15].Add(uint64(max(took, 0)))
}

// Delayed implements health.Metrics; the monitor's Stats count delays.
func (c *checkCounts) Delayed(time.Duration) {}

// Changed implements health.Metrics.
func (c *checkCounts) Changed(_, to health.State) { c.changed[to&3].Add(1) }

// probed are the kinds of check that are probes.
func probed() []health.Type {
	return []health.Type{health.TypeHTTP, health.TypeHTTPS, health.TypeTCP, health.TypeGRPC, health.TypeDNS, health.TypeHeld, health.TypeExec}
}

// newMetrics registers every family of the server.
func (s *server) newMetrics() (*metrics.Registry, error) {
	r, err := metrics.New(metrics.Build{Version: s.opt.Version})
	if err != nil {
		return nil, err
	}
	for _, families := range [][]metrics.Family{s.dnsFamilies(), s.poolFamilies(), s.healthFamilies(), s.registryFamilies(), s.proxyFamilies()} {
		if err := r.Add(families...); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// one is a family of a single series.
func one(name, help string, value func() float64) metrics.Family {
	kind := metrics.Gauge
	if strings.HasSuffix(name, "_total") {
		kind = metrics.Counter
	}
	return metrics.Family{Name: name, Help: help, Kind: kind, Collect: func(emit metrics.Emit) { emit(value()) }}
}

// count is one of a counter.
func count(name, help string, f func() uint64) metrics.Family {
	return one(name, help, func() float64 { return float64(f()) })
}

// perTransport emits a value of each transport's statistics.
func (s *server) perTransport(name, help string, value func(*dnsserver.TransportStats) uint64) metrics.Family {
	return metrics.Family{
		Name: name, Help: help, Kind: metrics.Counter, Labels: []string{"transport"},
		Collect: func(emit metrics.Emit) {
			st := s.dns.Stats()
			emit(float64(value(&st.UDP)), "udp")
			emit(float64(value(&st.TCP)), "tcp")
			emit(float64(value(&st.TLS)), "tls")
			emit(float64(value(&st.HTTPS)), "https")
			emit(float64(value(&st.QUIC)), "quic")
		},
	}
}

// dnsFamilies are about queries and their answers.
func (s *server) dnsFamilies() []metrics.Family {
	stat := func(f func(*dnsserver.Stats) uint64) func() float64 {
		return func() float64 { st := s.dns.Stats(); return float64(f(&st)) }
	}
	return []metrics.Family{
		s.perTransport("muster_dns_messages_received_total", "Messages received.", func(t *dnsserver.TransportStats) uint64 { return t.Received }),
		s.perTransport("muster_dns_messages_ignored_total", "Messages that were no query and got no answer.", func(t *dnsserver.TransportStats) uint64 { return t.Ignored }),
		s.perTransport("muster_dns_messages_rejected_total", "Malformed or unimplemented queries.", func(t *dnsserver.TransportStats) uint64 { return t.Rejected }),
		s.perTransport("muster_dns_responses_truncated_total", "Responses with the TC flag.", func(t *dnsserver.TransportStats) uint64 { return t.Truncated }),
		one("muster_admin_event_streams", "Event streams of the API that are open, such as those of consoles.", func() float64 { return float64(s.admin.Streams()) }),
		one("muster_dns_push_subscriptions", "Subscriptions of DNS Push.", func() float64 { return float64(s.push.Subscriptions()) }),
		one("muster_dns_push_memory_bytes", "What is kept of the subscriptions of DNS Push, by reckoning; 64 MiB at most.", func() float64 { return float64(s.push.Memory()) }),
		count("muster_dns_push_messages_total", "Messages of DNS Push sent.", s.push.Pushed),
		count("muster_dns_push_refused_total", "Sessions and subscriptions of DNS Push that found no room.", s.push.Refused),
		count("muster_dns_proxy_headers_bad_total", "Datagrams and connections of proxies that began with no PROXY header.", func() uint64 { return s.dns.Stats().BadHeaders + s.encrypted.badHeaders() }),
		count("muster_dns_encrypted_refused_total", "Connections of HTTPS and QUIC, and streams of QUIC, that were closed at once, at a limit.", s.encrypted.refused),
		count("muster_dns_signatures_found_total", "Sets answered with a signature that was there.", func() uint64 { kept, _ := s.authority.Signed(); return kept }),
		count("muster_dns_signatures_missed_total", "Answers that waited for a signature to be made.", func() uint64 { _, waited := s.authority.Signed(); return waited }),
		count("muster_dns_signatures_evicted_total", "Signatures that gave way to others, as there were too many to keep.", s.signaturesEvicted.Load),
		one("muster_dns_signatures_expire_timestamp_seconds", "When the first signature of a static zone expires; 0: none is signed.", s.signaturesExpire),
		count("muster_dns_notifies_answered_total", "NOTIFY messages that a secondary has answered.", s.notifier.Sent),
		count("muster_dns_notifies_failed_total", "Times that a secondary did not answer NOTIFY, all tries together.", s.notifier.Failed),
		s.perTransport("muster_dns_send_errors_total", "Responses that could not be sent.", func(t *dnsserver.TransportStats) uint64 { return t.SendFailed }),
		s.perTransport("muster_dns_panics_total", "Panics answered with SERVFAIL.", func(t *dnsserver.TransportStats) uint64 { return t.Panics }),
		s.perTransport("muster_dns_cookies_new_total", "Queries with a DNS cookie of the client alone.", func(t *dnsserver.TransportStats) uint64 { return t.CookiesNew }),
		s.perTransport("muster_dns_cookies_invalid_total", "Queries with a server cookie that is not good (any more).", func(t *dnsserver.TransportStats) uint64 { return t.CookiesInvalid }),
		s.perTransport("muster_dns_cookies_valid_total", "Queries with a server cookie that is good.", func(t *dnsserver.TransportStats) uint64 { return t.CookiesValid }),
		s.responseCodes(),
		{
			Name: "muster_dns_queries_total", Help: "Queries by how they were answered.", Kind: metrics.Counter, Labels: []string{"transport", "outcome"},
			Collect: func(emit metrics.Emit) {
				for c := range s.authority.Counts() {
					emit(float64(c.Queries), c.Transport.String(), c.Outcome.String())
				}
			},
		},
		one("muster_dns_alias_chains_cut_total", "Alias chains that were too long or circular.", func() float64 { return float64(s.authority.ChainsCut()) }),
		one("muster_dns_rate_limit_evictions_total", "Networks that were let off the rate limit, as there were too many to remember.", func() float64 { return float64(s.authority.RateLimitEvictions()) }),
		one("muster_dns_udp_overflow_total", "Queries the kernel dropped as a receive buffer was full.", stat(func(d *dnsserver.Stats) uint64 { return d.UDPOverflow })),
		one("muster_dns_tcp_connections", "Open TCP connections.", stat(func(d *dnsserver.Stats) uint64 { return d.Conns })),
		one("muster_dns_tcp_accepted_total", "TCP connections accepted.", stat(func(d *dnsserver.Stats) uint64 { return d.ConnsAccepted })),
		one("muster_dns_tcp_evicted_total", "Idle TCP connections closed to make room.", stat(func(d *dnsserver.Stats) uint64 { return d.ConnsEvicted })),
		one("muster_dns_tcp_refused_total", "TCP connections closed at once, at the limit.", stat(func(d *dnsserver.Stats) uint64 { return d.ConnsRefused })),
		one("muster_dns_deferred_queries", "Queries being forwarded.", stat(func(d *dnsserver.Stats) uint64 { return d.Slow })),
		one("muster_dns_deferred_full_total", "Queries that found no room to be forwarded.", stat(func(d *dnsserver.Stats) uint64 { return d.SlowFull })),
	}
}

// responseCodes counts responses by code.
func (s *server) responseCodes() metrics.Family {
	return metrics.Family{
		Name: "muster_dns_responses_total", Help: "Responses by response code, forwarded ones apart.", Kind: metrics.Counter, Labels: []string{"transport", "rcode"},
		Collect: func(emit metrics.Emit) {
			st := s.dns.Stats()
			for _, t := range []struct {
				name string
				st   *dnsserver.TransportStats
			}{{"udp", &st.UDP}, {"tcp", &st.TCP}} {
				for code, n := range t.st.RCodes {
					if n > 0 {
						emit(float64(n), t.name, wire.RCode(code).String())
					}
				}
			}
		},
	}
}

// poolFamilies are about the view.
func (s *server) poolFamilies() []metrics.Family {
	p := s.pool
	return []metrics.Family{
		count("muster_pool_batches_total", "Batches of changes applied.", func() uint64 { return p.Counters().Batches }),
		count("muster_pool_rebuilds_total", "Services rebuilt.", func() uint64 { return p.Counters().Rebuilds }),
		count("muster_pool_health_changes_total", "Changes of an instance's health.", func() uint64 { return p.Counters().HealthChanges }),
		count("muster_pool_fail_open_total", "Times a service went over to fail-open.", func() uint64 { return p.Counters().FailOpens }),
		count("muster_pool_problems_total", "Records found bad.", func() uint64 { return p.Counters().Problems }),
		count("muster_pool_problems_dropped_total", "Bad records that are not listed, since too many are.", func() uint64 { return p.Counters().ProblemsDropped }),
		count("muster_pool_events_lost_total", "Times a reader of events was too slow.", func() uint64 { return p.Counters().EventsLost }),
		count("muster_pool_churn_holds_total", "Times removals were held, since half of a zone fell at once.", func() uint64 { return p.Counters().ChurnHolds }),
		count("muster_pool_damped_total", "Times an instance was held back, since it falls too often.", func() uint64 { return p.Counters().Damped }),
		s.holding(),
		{
			Name: "muster_pool_services", Help: "Services by how they are answered now.", Kind: metrics.Gauge, Labels: []string{"mode"},
			Collect: func(emit metrics.Emit) {
				modes := p.Counters().Modes
				for m := pool.ModeNormal; m <= pool.ModeEmpty; m++ {
					emit(float64(modes[m]), m.String())
				}
			},
		},
		one("muster_pool_services_frozen", "Services of which health does not move the answers, by an administrator's word.", func() float64 { return float64(p.Counters().Frozen) }),
		s.failureTimes("muster_pool_wrong_answers_seconds", "Time from the first sign of an instance's failure to the last wrong answer, by what found it.",
			func(t *pool.FailureTimes) *pool.Times { return &t.Wrong }),
		s.failureTimes("muster_pool_wrong_answers_bound_seconds", "Time from the last good check of an instance that failed to the last wrong answer: they went on no longer.",
			func(t *pool.FailureTimes) *pool.Times { return &t.Bound }),
		count("muster_pool_listings_omitted_total", "Lists for DNS-SD that were cut at their limit.", func() uint64 { return p.Counters().ListingsOmitted }),
		count("muster_pool_filters_omitted_total", "Tags, zones and ports beyond the limit of a service.", func() uint64 { return p.Counters().FiltersOmitted }),
	}
}

// failureTimes is how long wrong answers went on.
func (s *server) failureTimes(name, help string, of func(*pool.FailureTimes) *pool.Times) metrics.Family {
	return metrics.Family{
		Name: name, Help: help, Kind: metrics.Histogram, Labels: []string{"cause"},
		Distributions: func(emit metrics.EmitDistribution) {
			list := s.pool.FailureTimes()
			for i := range list {
				t := of(&list[i])
				d := metrics.Distribution{Count: t.Count, Sum: t.Sum.Seconds(), Within: make(map[float64]uint64, len(t.Within))}
				for class, bound := range pool.TimeBounds() {
					d.Within[bound.Seconds()] = t.Within[class]
				}
				emit(d, list[i].Cause)
			}
		},
	}
}

// holding says of which zones removals are held.
func (s *server) holding() metrics.Family {
	return metrics.Family{
		Name: "muster_pool_removals_held", Help: "1 while removals of a zone are held, since half of it fell at once.", Kind: metrics.Gauge, Labels: []string{"zone"},
		Collect: func(emit metrics.Emit) {
			for i := range s.sources {
				held := 0.0
				if s.pool.View().Source(s.sources[i].etcd.ID()).Held(time.Now().UnixNano()) {
					held = 1
				}
				emit(held, s.sources[i].zone)
			}
		},
	}
}

// bit is 1 for true.
func bit(f func() bool) func() float64 {
	return func() float64 {
		if f() {
			return 1
		}
		return 0
	}
}

// healthFamilies are about checks.
func (s *server) healthFamilies() []metrics.Family {
	return []metrics.Family{
		{
			Name: "muster_health_checks_total", Help: "Checks done, by type and result.", Kind: metrics.Counter, Labels: []string{"type", "result"},
			Collect: func(emit metrics.Emit) {
				for _, t := range probed() {
					emit(float64(s.checks.done[t][0].Load()), t.String(), "failed")
					emit(float64(s.checks.done[t][1].Load()), t.String(), "passed")
				}
			},
		},
		{
			Name: "muster_health_check_seconds_total", Help: "Time spent in checks, by type.", Kind: metrics.Counter, Labels: []string{"type"},
			Collect: func(emit metrics.Emit) {
				for _, t := range probed() {
					emit(time.Duration(s.checks.nanos[t].Load()).Seconds(), t.String())
				}
			},
		},
		{
			Name: "muster_health_transitions_total", Help: "Changes of a target's state, by the new state.", Kind: metrics.Counter, Labels: []string{"state"},
			Collect: func(emit metrics.Emit) {
				for _, st := range []health.State{health.Passing, health.Failing} {
					emit(float64(s.checks.changed[st].Load()), st.String())
				}
			},
		},
		{
			Name: "muster_health_targets", Help: "Check targets by state.", Kind: metrics.Gauge, Labels: []string{"state"},
			Collect: func(emit metrics.Emit) {
				st := s.monitor.Stats()
				emit(float64(st.Unknown), health.Unknown.String())
				emit(float64(st.Passing), health.Passing.String())
				emit(float64(st.Failing), health.Failing.String())
			},
		},
		one("muster_health_suspect", "1 while this server doubts its own checks, since most of what it checks failed at once.", bit(s.pool.Suspect)),
		one("muster_health_reports_written_total", "Verdicts of this server's checks told to the others.", func() float64 { return float64(s.reportsWritten.Load()) }),
		one("muster_health_report_failures_total", "Transactions of such verdicts that failed, and were tried again.", func() float64 { return float64(s.reportsFailed.Load()) }),
		one("muster_health_reports_dropped_total", "Verdicts of other servers that were not kept, since an instance had too many.", func() float64 { return float64(s.pool.Counters().ReportsDropped) }),
		one("muster_health_checks_running", "Checks under way.", func() float64 { return float64(s.monitor.Stats().Running) }),
		one("muster_health_connections_kept", "Connections kept for the next check.", func() float64 { return float64(s.prober.Stats().Kept) }),
		one("muster_health_connections_not_kept_total", "Connections that were to be kept, for which there was no room.", func() float64 { return float64(s.prober.Stats().Full) }),
		one("muster_health_checks_delayed_total", "Checks that started late, as all workers were busy.", func() float64 { return float64(s.monitor.Stats().Delayed) }),
	}
}

// registryFamilies are about the registry and the configuration.
func (s *server) registryFamilies() []metrics.Family {
	perZone := func(name, help string, kind metrics.Kind, value func(*source) float64) metrics.Family {
		return metrics.Family{Name: name, Help: help, Kind: kind, Labels: []string{"zone"}, Collect: func(emit metrics.Emit) {
			for i := range s.sources {
				emit(value(&s.sources[i]), s.sources[i].zone)
			}
		}}
	}
	return []metrics.Family{
		perZone("muster_registry_age_seconds", "Age of the last proof that what is served is up to date.", metrics.Gauge, func(src *source) float64 {
			_, age := s.pool.View().Source(src.etcd.ID()).Freshness(time.Now().UnixNano())
			return float64(age)
		}),
		perZone("muster_registry_revision", "Revision of the registry that is served.", metrics.Gauge, func(src *source) float64 { return float64(src.stats().Revision) }),
		perZone("muster_registry_problems", "Records that cannot be used now.", metrics.Gauge, func(src *source) float64 { return float64(src.stats().Problems) }),
		perZone("muster_registry_ignored_fields", "Records in use with fields that are not known, 1000 at most.", metrics.Gauge, func(src *source) float64 { return float64(src.stats().Ignored) }),
		perZone("muster_registry_lists_total", "Times the complete state was read.", metrics.Counter, func(src *source) float64 { return float64(src.stats().Lists) }),
		perZone("muster_registry_events_total", "Changes received.", metrics.Counter, func(src *source) float64 { return float64(src.stats().Events) }),
		perZone("muster_registry_rollbacks_total", "Times the registry's revision or identity went back.", metrics.Counter, func(src *source) float64 { return float64(src.stats().Rollbacks) }),
		perZone("muster_services", "Services answered.", metrics.Gauge, func(src *source) float64 { return float64(s.pool.View().Source(src.etcd.ID()).Services()) }),
		one("muster_snapshot_written_timestamp_seconds", "When the snapshot was last written; 0: not yet.", func() float64 {
			return float64(s.snapshots.written.Load()) / 1e9
		}),
		one("muster_snapshot_failures_total", "Writes of the snapshot that failed.", func() float64 { return float64(s.snapshots.failed.Load()) }),
		one("muster_config_reloads_total", "Times a new configuration was put in force.", func() float64 { return float64(s.reloadsDone.Load()) }),
		one("muster_config_reload_failures_total", "Times a new configuration or zone file was refused.", func() float64 { return float64(s.reloadsFailed.Load()) }),
		one("muster_ready", "1 once the server is ready.", bit(s.ready.Load)),
	}
}
