package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
)

// The groups of verbs in the help.
const (
	groupServer   = "server"
	groupRegister = "register"
	groupOperate  = "operate"
	groupLook     = "look"
)

// DefaultAddr is where a server's admin API listens by default.
const DefaultAddr = "http://127.0.0.1:8653"

func (s *session) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "muster",
		Short: "DNS for services that are well",
		Long: `muster answers DNS for services whose instances are registered in etcd and
healthy now.

  muster dev                       a server with sample instances, on this machine
  muster explain web               what a question is answered, and why
  muster drain web/web-1           take an instance out of the answers

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 the server is not ready.`,
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddGroup(
		&cobra.Group{ID: groupServer, Title: "Server:"},
		&cobra.Group{ID: groupRegister, Title: "Registering:"},
		&cobra.Group{ID: groupOperate, Title: "Operating:"},
		&cobra.Group{ID: groupLook, Title: "Looking:"},
	)
	root.AddCommand(
		s.checkCommand(), s.keysCommand(), s.configCommand(), s.healthcheckCommand(),
		s.registerCommand(), s.deregisterCommand(),
		s.drainCommand(), s.maintenanceCommand(), s.freezeCommand(), s.weightCommand(), s.serviceCommand(), s.demoCommand(),
		s.servicesCommand(), s.instancesCommand(), s.watchCommand(), s.explainCommand(), s.queryCommand(),
		s.eventsCommand(), s.statusCommand(), s.doctorCommand(), s.versionCommand(),
	)
	if s.app.Serve != nil {
		root.AddCommand(s.devCommand(), s.serveCommand(), s.proxyCommand())
	}
	root.SetHelpCommand(helpCommand(root))
	root.InitDefaultCompletionCmd()
	if cmd, _, err := root.Find([]string{"completion"}); err == nil {
		onlyVerbs(cmd, cmd.Commands()) // cobra's own prints its help for any
	}
	plainUsage(root)
	root.SetFlagErrorFunc(nearFlag)
	s.mark(root)
	return root
}

// plainUsage keeps from the help what pflag writes behind each flag that is on or off: that
// --wait=false is possible.
func plainUsage(root *cobra.Command) {
	const noise = "[=true|false]"
	usage := root.UsageFunc()
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		out := cmd.OutOrStderr()
		var text bytes.Buffer
		cmd.SetOut(&text)
		err := usage(cmd)
		cmd.SetOut(out)
		fmt.Fprint(out, strings.ReplaceAll(text.String(), noise, strings.Repeat(" ", len(noise))))
		return err
	})
}

// nearFlag says which flag may have been meant by one that there is not.
func nearFlag(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		if near := config.Suggest("--"+unknown.GetSpecifiedName(), names); near != "" {
			return fmt.Errorf("%w: %s", err, near)
		}
	}
	return err
}

// helpCommand is cobra's help, but for that a verb that there is not is wrong
// usage: cobra's own says so and ends well.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [VERB]...", Short: "Help about a verb",
		Long: "Prints what muster VERB --help prints.",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if cmd, rest, err := root.Find(args); err == nil && len(rest) == 0 {
				for _, sub := range cmd.Commands() {
					if sub.IsAvailableCommand() {
						names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			switch {
			case err != nil:
				return &usageError{err}
			case len(rest) > 0 && cmd.HasSubCommands():
				return cmd.ValidateArgs(rest)
			case len(rest) > 0:
				return usagef("there is no %q: %s has no verbs", rest[0], cmd.CommandPath())
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// verbs makes cmd a verb that has verbs below it and, unless it lists
// something, does nothing alone.
func verbs(cmd *cobra.Command, below ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(below...)
	return onlyVerbs(cmd, below)
}

// onlyVerbs makes cmd refuse whatever is none of its verbs.
func onlyVerbs(cmd *cobra.Command, below []*cobra.Command) *cobra.Command {
	names := make([]string, len(below))
	for i, sub := range below {
		names[i] = sub.Name()
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := "there is no " + strconv.Quote(args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			begins := func(name string) bool { return strings.HasPrefix(name, args[0]) }
			return usagef("%s: did you mean %q?", text, near[max(0, slices.IndexFunc(near, begins))])
		}
		return usagef("%s: use one of %s", text, strings.Join(names, ", "))
	}
	if cmd.RunE == nil {
		cmd.RunE = func(*cobra.Command, []string) error {
			return usagef("use one of %s", strings.Join(names, ", "))
		}
	}
	cmd.SuggestionsMinimumDistance = 2
	return cmd
}

// mark makes every verb note that it has begun, so that an error before it is
// one of usage.
func (s *session) mark(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		s.mark(sub)
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			s.started = true
			return run(cmd, args)
		}
	}
}

// online adds the flags of a verb that talks to a server.
func (s *session) online(cmd *cobra.Command) *cobra.Command {
	addr := os.Getenv("MUSTER_ADDR")
	if addr == "" {
		addr = DefaultAddr
	}
	cmd.Flags().StringVar(&s.addr, "addr", addr, "the server's admin API `URL` (MUSTER_ADDR)")
	cmd.Flags().StringVar(&s.tokenFile, "token-file", os.Getenv("MUSTER_TOKEN_FILE"), "`file` with the token that writing needs (MUSTER_TOKEN_FILE)")
	return cmd
}

// listing adds the flag of a verb that prints what can be had in several
// forms.
func (s *session) listing(cmd *cobra.Command) *cobra.Command {
	s.output = formatTable
	cmd.Flags().VarP(&s.output, "output", "o", "table, wide, json or yaml")
	oneOf(cmd, "output", formats()...)
	return cmd
}

// oneOf has the shell propose the words that a flag takes.
func oneOf(cmd *cobra.Command, flag string, words ...string) {
	complete := func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic("cli: a flag that was just added: " + err.Error())
	}
}

// zoned adds the flag of a verb about the services of one zone.
func zoned(cmd *cobra.Command, zone *string) *cobra.Command {
	cmd.Flags().StringVar(zone, "zone", "", "the service zone, where there are several")
	return cmd
}

// tokenMax bounds a token's file.
const tokenMax = 4096

// api returns the client of the server that the flags name.
func (s *session) api() (*api.Client, error) {
	if s.client != nil {
		return s.client, nil
	}
	token := ""
	if s.tokenFile != "" {
		raw, err := os.ReadFile(s.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		token = strings.TrimSpace(string(raw))
		if token == "" || len(token) > tokenMax || strings.ContainsAny(token, "\r\n") {
			return nil, fmt.Errorf("--token-file %s: holds no token: write it alone on one line", s.tokenFile)
		}
	}
	c, err := api.NewClient(api.ClientConfig{Addr: s.addr, Token: token})
	if err != nil {
		return nil, &usageError{err}
	}
	s.client = c
	return c, nil
}
