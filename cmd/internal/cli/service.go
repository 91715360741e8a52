package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/registry"
)

func (s *session) serviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "service", Short: "Show or set the policy of a service", GroupID: groupOperate}
	return verbs(cmd, s.serviceShowCommand(), s.serviceSetCommand())
}

func (s *session) serviceShowCommand() *cobra.Command {
	var zone string
	cmd := &cobra.Command{
		Use: "show SERVICE", Short: "Show a service's policy and its instances", Args: arguments(1, 1), ValidArgsFunction: s.completeServices,
		Example: `  muster service show web
  muster service show web -o yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, zone, err := s.serviceName(cmd.Context(), args[0], zone)
			if err != nil {
				return err
			}
			c, err := s.api()
			if err != nil {
				return err
			}
			sv, err := c.Service(cmd.Context(), zone, name)
			if err != nil {
				return err
			}
			return s.print(sv, func(w io.Writer, wide bool) { serviceTable(w, &sv, wide, time.Now()) })
		},
	}
	return s.listing(s.online(zoned(cmd, &zone)))
}

func serviceTable(w io.Writer, sv *api.Service, wide bool, now time.Time) {
	row(w, "domain", sv.Domain)
	served := "no instance is registered"
	if sv.Counts.Total > 0 {
		served = fmt.Sprintf("%d of %s served", sv.Counts.Serving, count(sv.Counts.Total, "instance"))
	}
	row(w, "mode", fmt.Sprintf("%s, %s", modeOf(sv), served))
	row(w, "policy", sv.Policy)
	if sv.Policy == "hash" {
		row(w, "hash_on", sv.HashOn)
	}
	row(w, "ttl", duration(sv.TTL))
	row(w, "max_answers", answers(sv.MaxAnswers))
	row(w, "fail", sv.Fail)
	row(w, "panic_threshold", strconv.FormatFloat(sv.PanicThreshold, 'g', -1, 64))
	row(w, "slow_start", duration(sv.SlowStart))
	row(w, "spill", sv.Spill)
	if sv.ProxyPolicy != "" {
		row(w, "proxy_policy", sv.ProxyPolicy)
	}
	if sv.HashBound != 0 {
		row(w, "hash_bound", strconv.FormatFloat(sv.HashBound, 'g', -1, 64))
	}
	if len(sv.VIP) > 0 {
		row(w, "vip", addresses(sv.VIP, 0))
	}
	if len(sv.Failover) > 0 {
		row(w, "failover", strings.Join(sv.Failover, ", "))
	}
	if sv.Standin != "" {
		row(w, "answered by", sv.Standin)
	}
	if len(sv.Checks) == 0 {
		row(w, "check", "none")
	}
	for _, c := range sv.Checks {
		row(w, "check", c)
	}
	if len(sv.Instances) == 0 {
		return
	}
	fmt.Fprintln(w)
	instancesHead(w, wide)
	for i := range sv.Instances {
		instanceRow(w, &sv.Instances[i], wide, now)
	}
}

// serviceFlags are the flags of `service set`.
type serviceFlags struct {
	policy, hashOn, fail, spill, maxAnswers, proxyPolicy string
	ttl, slowStart                                       time.Duration
	panicThreshold, hashBound                            float64
	checks, vips, failover, unset                        []string
}

// unsettable are the members of a service's document that --unset takes.
func unsettable() []string {
	return []string{"policy", "ttl", "max_answers", "hash_on", "fail", "panic_threshold", "slow_start", "spill", "proxy_policy", "hash_bound", "vip", "failover", "checks"}
}

func (s *session) serviceSetCommand() *cobra.Command {
	var (
		zone  string
		flags serviceFlags
	)
	cmd := &cobra.Command{
		Use: "set SERVICE", Short: "Set parts of a service's policy", Args: arguments(1, 1), ValidArgsFunction: s.completeServices,
		Long: `Sets parts of a service's policy in its etcd key; what no flag names stays as it is.
--unset gives a part back to the configuration and the defaults.

` + checkHelp,
		Example: `  muster service set web --policy least-loaded --ttl 10s
  muster service set web --max-answers 2 --check http:/healthz,interval=1s
  muster service set web --unset ttl`,
		RunE: func(cmd *cobra.Command, args []string) error {
			patch, err := flags.patch(cmd)
			if err != nil {
				return err
			}
			name, zone, err := s.serviceName(cmd.Context(), args[0], zone)
			if err != nil {
				return err
			}
			c, err := s.api()
			if err != nil {
				return err
			}
			sv, err := c.SetService(cmd.Context(), api.ServiceRequest{Zone: zone, Service: name, Patch: patch})
			if err != nil {
				return err
			}
			if sv.Counts.Total == 0 {
				fmt.Fprintf(s.stderr, "muster: no instance of %s is registered yet: this holds from when one is; `muster services` lists what there is\n", sv.Name)
			}
			return s.print(sv, func(w io.Writer, wide bool) { serviceTable(w, &sv, wide, time.Now()) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.policy, "policy", "", strings.Join(registry.Policies(), ", "))
	f.DurationVar(&flags.ttl, "ttl", 0, "the TTL of answers")
	f.StringVar(&flags.maxAnswers, "max-answers", "", "how many instances an answer has, or auto")
	f.StringVar(&flags.hashOn, "hash-on", "", "policy hash: client, subnet or name")
	f.StringVar(&flags.fail, "fail", "", "when nothing passes: open, closed or tier")
	f.Float64Var(&flags.panicThreshold, "panic-threshold", 0, "below this `share` of passing weight all are served; 0: only when nothing passes")
	f.DurationVar(&flags.slowStart, "slow-start", 0, "how long a new instance takes to its full weight")
	f.StringVar(&flags.spill, "spill", "", "to the next tier: proportional or when-empty")
	f.StringVar(&flags.proxyPolicy, "proxy-policy", "", "how proxies choose: "+strings.Join(registry.ProxyPolicies(), ", "))
	f.Float64Var(&flags.hashBound, "hash-bound", 0, "hash in proxies: how many `times` its share of what is in flight an instance may have, as 1.25")
	f.StringSliceVar(&flags.vips, "vip", nil, "answer A and AAAA questions with this `address` of a proxy, in place of the instances' (repeatable)")
	f.StringSliceVar(&flags.failover, "failover", nil, "answer this `service` in its place while too few of its instances may be (repeatable)")
	f.StringArrayVar(&flags.checks, "check", nil, checkFlagHelp)
	f.StringSliceVar(&flags.unset, "unset", nil, "`parts` to unset: "+strings.Join(unsettable(), ", "))
	for flag, words := range map[string][]string{
		"policy": registry.Policies(), "proxy-policy": registry.ProxyPolicies(), "hash-on": {"client", "subnet", "name"},
		"fail": {"open", "closed", "tier"}, "spill": {"proportional", "when-empty"}, "max-answers": {"auto"}, "unset": unsettable(),
	} {
		oneOf(cmd, flag, words...)
	}
	return s.listing(s.online(zoned(cmd, &zone)))
}

// patch makes the merge patch of the flags that were given.
func (f *serviceFlags) patch(cmd *cobra.Command) (json.RawMessage, error) {
	sv := registry.Service{Policy: f.policy, TTL: f.ttl, HashOn: f.hashOn, Fail: f.fail, Spill: f.spill, ProxyPolicy: f.proxyPolicy, Failover: f.failover}
	changed := cmd.Flags().Changed
	if changed("ttl") && f.ttl == 0 {
		return nil, usagef("--ttl 0s: must be %s to %s; --unset ttl gives it back to the configuration", duration(api.Duration(registry.TTLMin)), duration(api.Duration(registry.TTLMax)))
	}
	if changed("panic-threshold") {
		sv.PanicThreshold = &f.panicThreshold
	}
	if changed("hash-bound") {
		if sv.HashBound = f.hashBound; f.hashBound == 0 {
			return nil, usagef("--hash-bound 0: must be 1 to %d; --unset hash_bound is none", registry.HashBoundMax)
		}
	}
	if changed("slow-start") {
		sv.SlowStart = &f.slowStart
	}
	if changed("max-answers") {
		n, err := strconv.Atoi(f.maxAnswers)
		if f.maxAnswers == "auto" {
			n, err = registry.MaxAnswersAuto, nil
		}
		if err != nil || f.maxAnswers != "auto" && n < 1 {
			return nil, usagef("--max-answers %q: must be a whole number from 1, or auto", f.maxAnswers)
		}
		sv.MaxAnswers = n
	}
	for _, text := range f.vips {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, usagef("--vip %q: must be an address, as 10.0.0.100", text)
		}
		sv.VIP = append(sv.VIP, a)
	}
	var err error
	if sv.Checks, err = parseChecks(f.checks); err != nil {
		return nil, err
	}
	if err := sv.Validate(); err != nil {
		return nil, &usageError{err}
	}
	sv.Name = "x" // not part of the document
	document, err := registry.EncodeService(sv)
	if err != nil {
		return nil, &usageError{err}
	}
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(document, &members); err != nil {
		return nil, fmt.Errorf("encoding the service: %w", err)
	}
	for _, name := range f.unset {
		name = strings.ReplaceAll(name, "-", "_")
		if !slices.Contains(unsettable(), name) {
			return nil, usagef("--unset %q: must be one of %s", name, strings.Join(unsettable(), ", "))
		}
		if _, set := members[name]; set {
			return nil, usagef("--unset %q: is set by the same command", name)
		}
		members[name] = json.RawMessage("null")
	}
	if len(members) == 0 {
		return nil, usagef("nothing to set: name a part, such as --policy, --ttl, --max-answers or --check")
	}
	return json.Marshal(members)
}
