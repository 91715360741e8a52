package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) deregisterCommand() *cobra.Command {
	var zone string
	cmd := &cobra.Command{
		Use: "deregister SERVICE/INSTANCE", Short: "Delete a registration", GroupID: groupRegister,
		Args: arguments(1, 1), ValidArgsFunction: s.completeInstances,
		Long: `Deletes the registration of an instance. One that a running registrant holds may come
back: end the registrant, or use muster drain.

` + targetHelp,
		Example: `  muster deregister web/web-1`,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := s.target(cmd.Context(), args[0], zone, false)
			if err != nil {
				return err
			}
			c, err := s.api()
			if err != nil {
				return err
			}
			if _, err := c.Deregister(cmd.Context(), api.DeregisterRequest{Zone: t.zone, Service: t.service, Instance: t.instance}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.stdout, "%s is deregistered\n", t)
			return err
		},
	}
	return s.online(zoned(cmd, &zone))
}
