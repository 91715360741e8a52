package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) weightCommand() *cobra.Command {
	var zone string
	cmd := &cobra.Command{
		Use: "weight SERVICE/INSTANCE WEIGHT", Short: "Change the weight of an instance", GroupID: groupOperate,
		Args: arguments(2, 2), ValidArgsFunction: s.completeInstances,
		Long: `Changes the weight of a registered instance, 0 to 65535. An instance of weight 0 is
answered only when nothing else is left. A registrant that registers anew brings its
own weight back.

` + targetHelp,
		Example: `  muster weight web/web-1 10`,
		RunE: func(cmd *cobra.Command, args []string) error {
			weight, err := strconv.ParseUint(args[1], 10, 16)
			if err != nil {
				return usagef("%q: a weight is a whole number, 0 to 65535", args[1])
			}
			t, err := s.target(cmd.Context(), args[0], zone, false)
			if err != nil {
				return err
			}
			c, err := s.api()
			if err != nil {
				return err
			}
			if _, err := c.SetWeight(cmd.Context(), api.WeightRequest{Zone: t.zone, Service: t.service, Instance: t.instance, Weight: uint16(weight)}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.stdout, "%s has weight %d\n", t, weight)
			return err
		},
	}
	return s.online(zoned(cmd, &zone))
}
