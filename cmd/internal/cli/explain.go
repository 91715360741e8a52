package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) explainCommand() *cobra.Command {
	var client, method string
	var fields []string
	var proxy bool
	cmd := &cobra.Command{
		Use: "explain NAME [TYPE]", Short: "Say what a question is answered, and why", GroupID: groupLook,
		ValidArgsFunction: s.completeQuestion,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case !proxy && (method != "" || len(fields) > 0):
				return usagef("--method and --header are of requests to the proxy: add --proxy")
			case proxy && len(args) != 1:
				return usagef("--proxy takes one URL, or the name or address of a listener: write `muster explain --proxy TARGET`")
			case proxy:
				return nil
			}
			return arguments(1, 2)(cmd, args)
		},
		Long: `Says what the server would answer a question at this moment, how long an instance
that dies stays in answers, and for each instance why it is in or out and what share
of the clients comes to it. NAME is a service, or any name of the zones.

With --proxy it says which listener, route, service and instance of the companion
proxy a request to a URL, or a connection to a listener, would take, and why.`,
		Example: `  muster explain web
  muster explain _http._tcp.web.svc.internal SRV
  muster explain web --client 10.1.2.3
  muster explain --proxy http://shop.example.com/api/users --header 'Cookie: user=42'
  muster explain --proxy 127.0.0.1:5432 --client 10.1.2.3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.api()
			if err != nil {
				return err
			}
			if proxy {
				e, err := c.ExplainProxy(cmd.Context(), args[0], method, client, fields)
				if err != nil {
					return err
				}
				return s.print(e, func(w io.Writer, wide bool) { proxyExplanation(w, &e, wide) })
			}
			typ := ""
			if len(args) == 2 {
				typ = strings.ToUpper(args[1])
			}
			e, err := c.Explain(cmd.Context(), args[0], typ, client)
			if err != nil {
				return err
			}
			return s.print(e, func(w io.Writer, wide bool) { explanation(w, &e, wide) })
		},
	}
	cmd.Flags().StringVar(&client, "client", "", "explain as if this `address` asked")
	cmd.Flags().BoolVar(&proxy, "proxy", false, "explain a request to the proxy: NAME is a URL, or the name or address of a listener")
	cmd.Flags().StringVar(&method, "method", "", "with --proxy: the request's method")
	cmd.Flags().StringArrayVar(&fields, "header", nil, "with --proxy: a `field` of the request, as in \"Cookie: a=b\" (repeatable)")
	return s.listing(s.online(cmd))
}

func explanation(w io.Writer, e *api.Explanation, wide bool) {
	fmt.Fprintf(w, "%s %s for %s: %s: %s\n", e.Name, e.Type, e.Client, e.Outcome, e.Why)
	if e.Standin != "" {
		fmt.Fprintf(w, "too few instances of %s may be answered: %s is, in its place\n", e.Service, e.Standin)
	}
	if e.Service != "" {
		fmt.Fprintf(w, "service %s in %s, policy %s, mode %s", e.Service, e.Zone, e.Policy, e.Mode)
		if e.Filter != "" {
			fmt.Fprintf(w, ", only %s", e.Filter)
		}
		fmt.Fprintln(w)
		if e.Answers > 0 {
			fmt.Fprintf(w, "%s picked, TTL %s", count(e.Answers, "instance"), duration(e.TTL))
			if e.TTLWhy != "" {
				fmt.Fprintf(w, " (%s)", e.TTLWhy)
			}
			fmt.Fprintln(w)
		}
		if len(e.Near) > 0 {
			var parts []string
			for _, zone := range slices.Sorted(maps.Keys(e.Near)) {
				parts = append(parts, fmt.Sprintf("%.1f%% %s", 100*e.Near[zone], zone))
			}
			fmt.Fprintf(w, "this client is answered by zone: %s\n", strings.Join(parts, ", "))
		}
		if e.Detection > 0 {
			fmt.Fprintf(w, "an instance that dies is out of new answers within %s, and out of caches within %s\n",
				duration(e.Detection), duration(e.Detection+e.TTL))
		}
		switch {
		case e.DetectionWhy != "" && e.Detection > 0:
			fmt.Fprintln(w, "  "+e.DetectionWhy)
		case e.DetectionWhy != "":
			fmt.Fprintln(w, e.DetectionWhy)
		}
		if e.LastFailure != nil {
			fmt.Fprintln(w, "last failure: "+failure(e.LastFailure))
		}
		if f := e.WorstFailure; f != nil && (f.Instance != e.LastFailure.Instance || !f.At.Equal(e.LastFailure.At)) {
			fmt.Fprintln(w, "the longest one: "+failure(f))
		}
	}
	if e.Age > 0 {
		fmt.Fprintf(w, "stale: what is known is %s old\n", duration(e.Age))
	}
	for _, r := range e.Records {
		fmt.Fprintln(w, "  "+strings.ReplaceAll(r, "\t", " "))
	}
	for _, warning := range e.Warnings {
		fmt.Fprintln(w, "warning: "+warning)
	}
	if len(e.Instances) == 0 {
		return
	}
	fmt.Fprintln(w)
	cells := []string{"INSTANCE", "IN", "SHARE", "HEALTH", "ADMIN", "WHY"}
	if wide {
		cells = append(cells, "ADDRESS", "TIER", "WEIGHT")
	}
	row(w, cells...)
	for _, v := range e.Instances {
		cells := []string{v.ID, yesNo(v.In), strconv.FormatFloat(100*v.Share, 'f', 1, 64) + "%", v.Health.String(), string(v.Admin), v.Why}
		if wide {
			cells = append(cells, addresses(v.Addresses, 0), strconv.Itoa(int(v.Priority)), strconv.Itoa(int(v.Weight)))
		}
		row(w, cells...)
	}
}

// failure is a measured failure in one clause.
func failure(f *api.Failure) string {
	return fmt.Sprintf("%s at %s, %s", f.Instance, f.At.Local().Format(time.DateTime), f.What)
}
