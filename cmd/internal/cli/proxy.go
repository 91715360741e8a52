package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) proxyStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show the proxy's listeners, routes and instances", Args: arguments(0, 0),
		Long: `Shows where the proxy of a running server listens, its routes in the order in which
they are tried, and each service's instances with what is in flight, their shares, and
who is ejected as its requests failed.`,
		Example: `  muster proxy status
  muster proxy status -o wide`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.api()
			if err != nil {
				return err
			}
			p, err := c.Proxy(cmd.Context())
			if err != nil {
				return err
			}
			return s.print(p, func(w io.Writer, wide bool) { proxyTable(w, &p, wide) })
		},
	}
	return s.listing(s.online(cmd))
}

func proxyTable(w io.Writer, p *api.Proxy, wide bool) {
	row(w, "LISTENER", "MODE", "ADDRESS", "SERVICE", "ACTIVE", "TAKEN", "REFUSED")
	for _, l := range p.Listeners {
		row(w, l.Name, l.Mode, l.Address, l.Service, strconv.FormatInt(l.Active, 10), strconv.FormatUint(l.Taken, 10), strconv.FormatUint(l.Refused, 10))
	}
	for i := range p.Listeners {
		kernelTraffic(w, &p.Listeners[i], wide)
	}
	if len(p.VIPs) > 0 {
		fmt.Fprintln(w)
		row(w, "VIP", "INTERFACE", "HERE", "TERMS", "FAILED")
		for _, v := range p.VIPs {
			row(w, v.Address.String(), v.Interface, yesNo(v.Holding), strconv.FormatUint(v.Terms, 10), strconv.FormatUint(v.Failures, 10))
		}
	}
	if len(p.Routes) > 0 {
		fmt.Fprintln(w)
		row(w, "ROUTE", "HOSTS", "PATH", "SERVICE", "FROM")
		for _, r := range p.Routes {
			row(w, r.Name, strings.Join(r.Hosts, " "), r.Path, r.Service, r.Source)
		}
		for _, r := range p.Routes {
			if r.Problem != "" {
				fmt.Fprintf(w, "route %s is not in force: %s\n", r.Name, r.Problem)
			}
		}
	}
	for i := range p.Services {
		sv := &p.Services[i]
		fmt.Fprintln(w)
		head := fmt.Sprintf("service %s in %s", sv.Service, sv.Zone)
		if sv.Part != "" {
			head += ", " + sv.Part
		}
		if sv.Policy == "" {
			fmt.Fprintln(w, head+": not registered")
			continue
		}
		fmt.Fprintf(w, "%s: %s, mode %s, %d in flight\n", head, sv.Policy, sv.Mode, sv.Active)
		proxyInstances(w, sv.Instances, wide)
	}
}

// kernelTraffic is what the kernel forwards for a listener of mode nat or dsr.
func kernelTraffic(w io.Writer, l *api.ProxyListener, wide bool) {
	if len(l.Instances) == 0 && l.Error == "" && l.Attached == "" {
		return
	}
	fmt.Fprintln(w)
	head := "listener " + l.Name
	if l.Attached != "" {
		head += ", attached to " + l.Interface + " as " + l.Attached
	}
	fmt.Fprintln(w, head)
	if l.Error != "" {
		fmt.Fprintln(w, "failed: "+l.Error)
	}
	if len(l.Instances) == 0 {
		return
	}
	cells := []string{"INSTANCE", "IN", "ACTIVE", "CONNECTIONS", "PACKETS", "BYTES", "WHY"}
	if wide {
		cells = append(cells, "ADDRESS", "REPLY PACKETS", "REPLY BYTES")
	}
	row(w, cells...)
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	for _, in := range l.Instances {
		cells := []string{in.ID, yesNo(in.In), strconv.FormatInt(in.Active, 10), number(in.Connections), number(in.Packets), number(in.Bytes), in.Why}
		if wide {
			cells = append(cells, in.Address.String(), number(in.ReplyPackets), number(in.ReplyBytes))
		}
		row(w, cells...)
	}
}

// proxyInstances is the instances of one service as the proxy sees them.
func proxyInstances(w io.Writer, list []api.ProxyInstance, wide bool) {
	if len(list) == 0 {
		return
	}
	cells := []string{"INSTANCE", "IN", "SHARE", "ACTIVE", "TOTAL", "FAILED", "WHY"}
	if wide {
		cells = append(cells, "ADDRESS", "BYTES IN", "BYTES OUT")
	}
	row(w, cells...)
	for _, in := range list {
		cells := []string{
			in.ID, yesNo(in.In), strconv.FormatFloat(100*in.Share, 'f', 1, 64) + "%", strconv.FormatInt(in.Active, 10),
			strconv.FormatInt(in.Total, 10), strconv.FormatInt(in.Failures, 10), in.Why,
		}
		if wide {
			cells = append(cells, in.Address.String(), strconv.FormatInt(in.BytesIn, 10), strconv.FormatInt(in.BytesOut, 10))
		}
		row(w, cells...)
	}
}

// proxyExplanation says which way a request would take.
func proxyExplanation(w io.Writer, e *api.ProxyExplanation, wide bool) {
	fmt.Fprintf(w, "listener %s, mode %s\n", e.Listener, e.Mode)
	for _, c := range e.Considered {
		fmt.Fprintf(w, "route %s: %s\n", c.Route, c.Why)
	}
	if e.Service != "" {
		fmt.Fprintf(w, "service %s", e.Service)
		if e.Target != "" {
			fmt.Fprintf(w, ", asked for %s over %s", e.Target, e.Protocol)
		}
		fmt.Fprintln(w)
	}
	switch {
	case e.Limited:
		fmt.Fprintln(w, "429: the route's limit is used up")
	case e.Instance == "":
		fmt.Fprintln(w, e.Why)
	case e.Certain:
		fmt.Fprintf(w, "instance %s at %s: %s\n", e.Instance, e.Address, e.Why)
	default:
		fmt.Fprintf(w, "one of the instances below, as %s at %s: %s\n", e.Instance, e.Address, e.Why)
	}
	if len(e.Instances) > 0 {
		fmt.Fprintln(w)
		proxyInstances(w, e.Instances, wide)
	}
}
