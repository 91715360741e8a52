package cli

import (
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) drainCommand() *cobra.Command {
	return s.adminCommand(api.AdminDrain, &cobra.Command{
		Use: "drain SERVICE/INSTANCE", Short: "Take an instance out of the answers before it is stopped",
		Long: `Takes an instance out of the answers while it still works, and says after what time
no cache should send clients to it any more; --wait waits for that. It stays drained,
through restarts of the instance too, until --undo or the end of --for.

` + targetHelp,
		Example: `  muster drain web/web-1 --wait && systemctl stop web
  muster drain web/web-1 --for 10m --reason "kernel update"
  muster drain web/web-1 --undo
  muster drain web --all`,
	})
}

func (s *session) maintenanceCommand() *cobra.Command {
	return s.adminCommand(api.AdminMaintenance, &cobra.Command{
		Use: "maintenance SERVICE/INSTANCE", Short: "Mark an instance as being worked on: out, and no alarm",
		Long: `Takes an instance out of the answers, whatever its health, and marks it as being
worked on: its failing checks are no finding of muster doctor then. It stays so until
--undo or the end of --for.

` + targetHelp,
		Example: `  muster maintenance web/web-1 --for 2h --reason "new disk"
  muster maintenance web/web-1 --undo`,
	})
}

// adminCommand is a verb that says an administrator's word.
func (s *session) adminCommand(state api.AdminState, cmd *cobra.Command) *cobra.Command {
	req := api.AdminRequest{State: state, By: whoami()}
	var (
		undo, all, wait bool
		until           time.Duration
	)
	cmd.GroupID, cmd.Args, cmd.ValidArgsFunction = groupOperate, arguments(1, 1), s.completeInstances
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := s.target(cmd.Context(), args[0], req.Zone, all)
		if err != nil {
			return err
		}
		switch {
		case undo && (wait || until != 0):
			return usagef("--undo: leave --wait and --for out: it is withdrawn at once")
		case undo:
			req.State = api.AdminNone
		}
		if until < 0 {
			return usagef("--for %s: must not be negative", until)
		}
		req.Zone, req.Service, req.Instance, req.For = t.zone, t.service, t.instance, api.Duration(until)
		c, err := s.api()
		if err != nil {
			return err
		}
		set, err := c.SetAdmin(cmd.Context(), req)
		if err != nil {
			return err
		}
		s.tellAdmin(t, req.State, set, until)
		if wait && !undo && !sleep(cmd.Context(), time.Duration(set.SafeAfter)) {
			return cmd.Context().Err()
		}
		return nil
	}
	f := cmd.Flags()
	f.BoolVar(&undo, "undo", false, "withdraw it")
	f.BoolVar(&all, "all", false, "all instances of the service that is named")
	f.BoolVar(&wait, "wait", false, "return when no cache should hold it any more")
	f.DurationVar(&until, "for", 0, "withdraw it by itself after this `time`")
	f.StringVar(&req.Reason, "reason", "", "why, for other people")
	return s.online(zoned(cmd, &req.Zone))
}

// tellAdmin says what has come of a word that ends by itself after a time; 0: it does not.
func (s *session) tellAdmin(t target, state api.AdminState, set api.AdminSet, until time.Duration) {
	words := map[api.AdminState]string{
		api.AdminNone: "is back", api.AdminDrain: "is drained", api.AdminMaintenance: "is in maintenance",
	}
	fmt.Fprintf(s.stdout, "%s %s", t, words[state])
	if !set.Until.IsZero() {
		fmt.Fprintf(s.stdout, " until %s", set.Until.Local().Format(time.DateTime))
	}
	fmt.Fprintf(s.stdout, "; %s served\n", count(set.Left, "instance"))
	if state == api.AdminNone {
		return
	}
	switch after := time.Duration(set.SafeAfter); {
	case until > 0 && until <= after:
		fmt.Fprintf(s.stderr, "muster: warning: it is never safe to stop: caches let go of it after %s, and after %s it is answered again; give a longer --for\n", duration(set.SafeAfter), until)
	case after > 0:
		fmt.Fprintf(s.stdout, "safe to stop in %s, when caches have let go of it\n", duration(set.SafeAfter))
	default:
		fmt.Fprintln(s.stdout, "safe to stop now: no cache holds it")
	}
	if set.Left == 0 {
		fmt.Fprintf(s.stderr, "muster: warning: no instance of %s is served now\n", t.service)
	}
}

// whoami is user@host, for the record of who said it.
func whoami() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
