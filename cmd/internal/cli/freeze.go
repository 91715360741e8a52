package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) freezeCommand() *cobra.Command {
	req := api.AdminRequest{State: api.AdminFreeze, Instance: api.Freeze, By: whoami()}
	var (
		undo  bool
		until time.Duration
	)
	cmd := &cobra.Command{
		Use: "freeze [SERVICE]", Short: "Stop health from moving the answers of a service, or of all",
		GroupID: groupOperate, Args: arguments(0, 1), ValidArgsFunction: s.completeServices,
		Long: `Keeps the answers of a service, or of all of a zone, as they are: checks go on, and
what they find is shown, but takes no instance out and brings none back until --undo or
the end of --for. Registering, deregistering, drain and maintenance work as ever.

For the time in which checks cannot be trusted: work on the network, or on what the
checks depend on.`,
		Example: `  muster freeze web --for 10m --reason "new switch"
  muster freeze --for 10m
  muster freeze --undo`,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		what := "all services"
		req.Service = api.AllServices
		if len(args) == 1 {
			t, err := s.target(cmd.Context(), args[0], req.Zone, true)
			if err != nil {
				return err
			}
			req.Zone, req.Service, what = t.zone, t.service, t.service
		}
		switch {
		case undo && until != 0:
			return usagef("--undo: leave --for out: it is withdrawn at once")
		case until < 0:
			return usagef("--for %s: must not be negative", until)
		case undo:
			req.State = api.AdminNone
		}
		req.For = api.Duration(until)
		c, err := s.api()
		if err != nil {
			return err
		}
		set, err := c.SetAdmin(cmd.Context(), req)
		if err != nil {
			return err
		}
		switch {
		case undo:
			_, err = fmt.Fprintf(s.stdout, "%s: health moves the answers again\n", what)
		case set.Until.IsZero():
			_, err = fmt.Fprintf(s.stdout, "%s: the answers are frozen\n", what)
		default:
			_, err = fmt.Fprintf(s.stdout, "%s: the answers are frozen until %s\n", what, set.Until.Local().Format(time.DateTime))
		}
		return err
	}
	f := cmd.Flags()
	f.BoolVar(&undo, "undo", false, "withdraw it")
	f.DurationVar(&until, "for", 0, "withdraw it by itself after this `time`")
	f.StringVar(&req.Reason, "reason", "", "why, for other people")
	return s.online(zoned(cmd, &req.Zone))
}
