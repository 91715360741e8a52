package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) watchCommand() *cobra.Command {
	var zone string
	var push pushFlags
	cmd := &cobra.Command{
		Use: "watch [SERVICE]", Short: "Print instances as they change", GroupID: groupLook,
		Args: arguments(0, 1), ValidArgsFunction: s.completeServices,
		Long: `Prints the instances, and then each one again whenever it is in or out, well or ill,
changed or gone. It goes on when the server is restarted; end it with Ctrl-C.

With --push it subscribes to the records of a name by DNS Push (RFC 8765, over TLS), as
any client of DNS can, and prints those that come (+) and go (-).`,
		Example: `  muster watch web
  muster watch --push web.svc.internal --server 10.0.0.53 --server-name dns.example.com
  muster watch --push _http._tcp.web.svc.internal --type SRV --server 10.0.0.53 --ca ca.pem --server-name dns.example.com`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if push.on {
				if len(args) == 0 {
					return usagef("--push: name what to subscribe to, as web.svc.internal")
				}
				return s.push(cmd.Context(), &push, args[0])
			}
			c, err := s.api()
			if err != nil {
				return err
			}
			w := &watcher{session: s, client: c, zone: zone, known: map[string]api.Instance{}}
			if len(args) == 1 {
				if w.service, w.zone, err = s.serviceName(cmd.Context(), args[0], zone); err != nil {
					return err
				}
			}
			return w.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&push.on, "push", false, "subscribe by DNS Push to the records of a name")
	cmd.Flags().StringVar(&push.server, "server", "", "with --push: `address` of the server, with a port unless it is 853; default: where the server at --addr answers")
	cmd.Flags().StringVar(&push.typ, "type", "A", "with --push: the `TYPE` of the records")
	cmd.Flags().StringVar(&push.ca, "ca", "", "with --push: `file` with certificates that the server's may be signed by; default: the system's")
	cmd.Flags().StringVar(&push.serverName, "server-name", "", "with --push: the `name` in the server's certificate; default: its address")
	cmd.Flags().BoolVar(&push.insecure, "insecure", false, "with --push: take any certificate")
	return s.online(zoned(cmd, &zone))
}

// watcher prints the difference between what it knows and what the server says.
type watcher struct {
	session       *session
	client        *api.Client
	zone, service string
	known         map[string]api.Instance // by domain
	headed        bool
}

func (w *watcher) run(ctx context.Context) error {
	relist := func(zone, service string) error {
		list, err := w.client.Instances(ctx, zone, service)
		if err != nil {
			return err
		}
		return w.show(list.Instances, zone, service)
	}
	err := w.client.Events(ctx, api.EventFilter{Zone: w.zone, Service: w.service}, api.EventHooks{
		Connected: func() error { return relist(w.zone, w.service) },
		Lost:      func(err error) { fmt.Fprintf(w.session.stderr, "muster: %v; trying again\n", err) },
	}, func(e api.Event) error {
		switch {
		case e.Kind == api.EventGap:
			return relist(w.zone, w.service)
		case e.Service == "":
			return nil
		}
		return relist(e.Zone, e.Service)
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// show prints what is new or different, and what is gone of the service
// listed (empty: of all).
func (w *watcher) show(list []api.Instance, zone, service string) error {
	now := time.Now()
	tw := tabwriter.NewWriter(w.session.stdout, 8, 8, 2, ' ', 0)
	if !w.headed {
		instancesHead(tw, false)
		w.headed = true
	}
	gone := maps.Clone(w.known)
	for i := range list {
		in := &list[i]
		old, had := w.known[in.Domain]
		delete(gone, in.Domain)
		if had && !differs(&old, in) {
			continue
		}
		w.known[in.Domain] = *in
		instanceRow(tw, in, false, now)
	}
	for _, domain := range slices.Sorted(maps.Keys(gone)) {
		in := gone[domain]
		if service != "" && (in.Service != service || zone != "" && in.Zone != zone) {
			continue
		}
		delete(w.known, domain)
		in.Serving, in.Why = false, "deregistered"
		instanceRow(tw, &in, false, now)
	}
	return tw.Flush()
}

// differs reports whether a change is worth a line: what a row shows, without
// the reason's wording and the time that passes.
func differs(a, b *api.Instance) bool {
	admin := func(in *api.Instance) api.AdminState {
		if in.Admin == nil {
			return api.AdminNone
		}
		return in.Admin.State
	}
	return a.Serving != b.Serving || a.Health != b.Health || admin(a) != admin(b) || a.Weight != b.Weight ||
		a.Port != b.Port || !slices.Equal(a.Addresses, b.Addresses)
}
