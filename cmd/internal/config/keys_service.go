package config

import (
	"net/netip"
	"time"

	"github.com/musterdns/muster/registry"
)

func healthKeys() key {
	return under("health", "The checking of instances.", func(c *Config) *Health { return &c.Health },
		under("defaults", "What checks take where they say nothing themselves.", func(c *Health) *CheckDefaults { return &c.Defaults },
			one("interval", "2s", "From the start of one check to the start of the next.", checkInterval(),
				func(c *CheckDefaults, v time.Duration) { c.Interval = v }),
			one("timeout", "1s", "How long a check may take; at most the interval.", checkTimeout(),
				func(c *CheckDefaults, v time.Duration) { c.Timeout = v }),
			one("rise", "2", "Passed checks in a row that make a failing instance pass.", checkCount(),
				func(c *CheckDefaults, v int) { c.Rise = v }),
			one("fall", "3", "Failed checks in a row that make a passing instance fail: one is often a hiccup.", checkCount(),
				func(c *CheckDefaults, v int) { c.Fall = v }),
			one("fast_interval", "500ms", "The interval after a first failure, so that the verdict comes soon.", checkInterval(),
				func(c *CheckDefaults, v time.Duration) { c.FastInterval = v }),
		),
		many("allow_targets", "[]", "Networks that may be checked although they are loopback, link-local, multicast or a cloud's metadata address. `muster dev` allows loopback.", network(),
			func(c *Health, v []netip.Prefix) { c.AllowTargets = v }),
		one("exec", "off", "Whether exec checks run commands of this machine: never (off), those of services[].checks of this file, to the letter (configured), or any that a key in etcd names (any): whoever may register can then run what this server may run.", oneOf(ExecOff, ExecConfigured, ExecAny),
			func(c *Health, v ExecMode) { c.Exec = v }),
		one("share", "true", "Share the checking with the other servers of the registry: each instance is checked by up to three of them, and a majority decides.", boolean(),
			func(c *Health, v bool) { c.Share = v }),
		one("churn_hold", "60s", "How long removals are held when half of a zone, and ten instances or more, fall within 10s by health or lost leases.", duration(time.Second, time.Hour, "they never are"),
			func(c *Health, v time.Duration) { c.ChurnHold = v }),
	)
}

func serviceKeys() key {
	return each("services", "[]",
		"Policy by service name, under what the service's key in etcd says. An entry for * is under those with a name.",
		func(c *Config, v []Service) { c.Services = v },
		must(one("name", "", "The service; *: all of the zone.", serviceName(),
			func(s *Service, v string) { s.Name = v })),
		one("zone", "", "The service zone it is in. Default: the only one.", domain(""),
			func(s *Service, v string) { s.Zone = v }),
		one("policy", "", "How instances are picked. Default weighted.", oneOf(registry.Policies()...),
			func(s *Service, v string) { s.Policy = v }),
		one("ttl", "", "The TTL of answers. Default: the zone's.", duration(registry.TTLMin, registry.TTLMax, ""),
			func(s *Service, v time.Duration) { s.TTL = v }),
		one("max_answers", "", "How many instances an answer has. Default auto: up to 8 of equal weight, else 1, the only number whose shares are exact.", maxAnswers(),
			func(s *Service, v int) { s.MaxAnswers = v }),
		one("hash_on", "", "Policy hash: what is hashed. Default client.", oneOf("client", "subnet", "name"),
			func(s *Service, v string) { s.HashOn = v }),
		one("fail", "", "When nothing passes: serve all (open), nothing (closed), or the next tier and then nothing (tier). Default open.", oneOf("open", "closed", "tier"),
			func(s *Service, v string) { s.Fail = v }),
		one("panic_threshold", "", "Below this share of passing weight all are served. Default 0: only when nothing passes.", fraction(),
			func(s *Service, v float64) { s.PanicThreshold = &v }),
		one("slow_start", "", "How long a new or recovered instance takes to its full weight. Default 0s: none.", duration(time.Second, registry.SlowStartMax, "none"),
			func(s *Service, v time.Duration) { s.SlowStart = &v }),
		one("spill", "", "How load moves to the next tier: with each loss (proportional), or when a tier is empty. Default: when-empty below 6 instances.", oneOf("proportional", "when-empty"),
			func(s *Service, v string) { s.Spill = v }),
		one("proxy_policy", "", "How proxies choose. Default: as policy says, least-loaded going by the requests in flight.", oneOf(registry.ProxyPolicies()...),
			func(s *Service, v string) { s.ProxyPolicy = v }),
		one("hash_bound", "", "Policy hash in proxies: how many times its share of the requests in flight an instance may have before others take its clients; 1.25 is usual. Default: any number.", number(1, registry.HashBoundMax),
			func(s *Service, v float64) { s.HashBound = v }),
		many("vip", "", "Addresses to answer A and AAAA questions for the service with, in place of its instances', while one of them is served: those at which proxies forward to it.", addressOnly(),
			func(s *Service, v []netip.Addr) { s.VIP = v }),
		many("failover", "", "Services that are answered, and forwarded to, in place of this one while too few of its instances may be: the first of them that is well. A name with a dot at its end is of any service zone of this server (web.svc.dc2.), another is in the same zone.", failoverName(),
			func(s *Service, v []string) { s.Failover = v }),
		checkKeys(),
	)
}

func checkKeys() key {
	return each("checks", "", "How instances without checks of their own are checked. An empty list: not at all.",
		func(s *Service, v []registry.Check) { s.Checks = v },
		must(one("type", "", "The kind of check; ttl waits for heartbeats, held keeps a connection open whose end is known at once, exec runs a command (health.exec).", oneOf(registry.CheckTypes()...),
			func(c *registry.Check, v string) { c.Type = v })),
		one("port", "", "A port's name or number. Default: the instance's port.", text(),
			func(c *registry.Check, v string) { c.Port = v }),
		one("path", "", "http, https: what is asked for. Default /. held: asked for each interval, over the connection; default: nothing is sent.", text(),
			func(c *registry.Check, v string) { c.Path = v }),
		one("host", "", "http, https: the Host header and TLS server name. Default: the address.", text(),
			func(c *registry.Check, v string) { c.Host = v }),
		one("method", "", "http, https. Default GET.", oneOf("GET", "HEAD"),
			func(c *registry.Check, v string) { c.Method = v }),
		one("status", "", "http, https: codes that pass, as in 200,204 or 200-399, the default.", text(),
			func(c *registry.Check, v string) { c.Status = v }),
		one("service", "", "grpc: the service asked about. Default: the server as a whole.", text(),
			func(c *registry.Check, v string) { c.Service = v }),
		one("name", "", "dns: the question's name.", domain(""),
			func(c *registry.Check, v string) { c.Name = v }),
		one("record", "", "dns: the question's type. Default A.", text(),
			func(c *registry.Check, v string) { c.Record = v }),
		one("insecure", "", "https: do not verify the certificate.", boolean(),
			func(c *registry.Check, v bool) { c.Insecure = v }),
		one("keep", "", "http, https, grpc: keep the connection from one check to the next, and check again at once when it ends; grpc: watch the status as well. Default false: a connection of its own tests too that new ones are accepted.", boolean(),
			func(c *registry.Check, v bool) { c.Keep = v }),
		many("command", "", "exec: the absolute path of a program and its arguments; no shell. See health.exec.", argument(),
			func(c *registry.Check, v []string) { c.Command = v }),
		one("interval", "", "As in health.defaults; type ttl: how long a heartbeat is good for.", checkInterval(),
			func(c *registry.Check, v time.Duration) { c.Interval = v }),
		one("timeout", "", "As in health.defaults.", checkTimeout(),
			func(c *registry.Check, v time.Duration) { c.Timeout = v }),
		one("rise", "", "As in health.defaults.", checkCount(),
			func(c *registry.Check, v int) { c.Rise = v }),
		one("fall", "", "As in health.defaults.", checkCount(),
			func(c *registry.Check, v int) { c.Fall = v }),
	)
}

func checkInterval() value[time.Duration] {
	return duration(registry.CheckIntervalMin, registry.CheckIntervalMax, "")
}

func checkTimeout() value[time.Duration] {
	return duration(registry.CheckTimeoutMin, registry.CheckTimeoutMax, "")
}

func checkCount() value[int] { return integer(1, registry.CheckCountMax) }
