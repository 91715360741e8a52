package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "demo", Short: "Make a sample instance of muster dev ill or well", GroupID: groupOperate,
		Long: `Acts on the sample instances of muster dev, real HTTP servers on this machine. Without
a verb it lists them.`,
		Example: `  muster demo
  muster demo kill web-1
  muster demo revive web-1`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.api()
			if err != nil {
				return err
			}
			list, err := c.Demo(cmd.Context())
			if err != nil {
				return err
			}
			return s.print(list, func(w io.Writer, _ bool) {
				row(w, "INSTANCE", "ADDRESS", "STATE")
				for _, in := range list {
					row(w, in.Service+"/"+in.ID, in.Address, in.State)
				}
			})
		},
	}
	var delay time.Duration
	slow := s.demoVerb(api.DemoSlow, "Let it answer late", &delay)
	slow.Flags().DurationVar(&delay, "delay", 5*time.Second, "how late")
	verbs(cmd,
		s.demoVerb(api.DemoKill, "End its server: connections are refused", nil),
		s.demoVerb(api.DemoRevive, "Let it be well again", nil),
		slow,
		s.demoVerb(api.DemoFail, "Let it answer 500", nil),
	)
	return s.listing(s.online(cmd))
}

func (s *session) demoVerb(action api.DemoAction, short string, delay *time.Duration) *cobra.Command {
	cmd := &cobra.Command{
		Use: string(action) + " INSTANCE", Short: short, Args: arguments(1, 1), Example: "  muster demo " + string(action) + " web-1",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return s.complete(cmd, args, demoNames)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.api()
			if err != nil {
				return err
			}
			req := api.DemoRequest{Instance: lastPart(args[0]), Action: action}
			if delay != nil {
				req.Delay = api.Duration(*delay)
			}
			in, err := c.DemoDo(cmd.Context(), req)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.stdout, "%s/%s at %s: %s\n", in.Service, in.ID, in.Address, in.State)
			return err
		},
	}
	return s.online(cmd)
}

// demoNames are the ids of the sample instances.
func demoNames(ctx context.Context, c *api.Client) ([]string, error) {
	list, err := c.Demo(ctx)
	var out []string
	for _, in := range list {
		out = append(out, in.ID)
	}
	return out, err
}

// lastPart takes the service off SERVICE/INSTANCE: ids of samples are distinct.
func lastPart(name string) string {
	return name[strings.LastIndexByte(name, '/')+1:]
}
