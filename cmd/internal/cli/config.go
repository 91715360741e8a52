package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/config"
)

func (s *session) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Show the configuration: in force, every key, or a schema", GroupID: groupServer,
	}
	return verbs(cmd, s.configViewCommand(),
		&cobra.Command{
			Use: "reference", Short: "Print a file with every key, its default and what it means", Args: arguments(0, 0),
			Example: `  muster config reference > muster.yaml`,
			RunE: func(*cobra.Command, []string) error {
				_, err := io.WriteString(s.stdout, config.Reference())
				return err
			},
		},
		&cobra.Command{
			Use: "schema", Short: "Print a JSON schema of the file, for editors", Args: arguments(0, 0),
			Example: `  muster config schema > muster.schema.json`,
			RunE: func(*cobra.Command, []string) error {
				_, err := s.stdout.Write(config.Schema())
				return err
			},
		})
}

// settingView is one key of `config view -o json`.
type settingView struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin string `json:"origin"`
}

func (s *session) configViewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "view", Short: "Print what is in force, and where each value comes from", Args: arguments(0, 0),
		Long: `Prints the configuration that muster serve would run with, given the same file,
environment and flags, with the origin of every value: a place in the file, a
variable, a flag, or default.`,
		Example: `  muster config view
  MUSTER_LOG_LEVEL=debug muster config view --config /etc/muster/muster.yaml -o json`,
	}
	file := configFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, problems := config.Load(config.Options{File: *file, Flags: cmd.Flags()})
		for _, p := range problems {
			fmt.Fprintln(s.stderr, p)
		}
		if cfg == nil {
			return fmt.Errorf("the configuration cannot be used: %s", count(len(problems), "problem"))
		}
		if s.output == formatTable || s.output == formatWide {
			_, err := io.WriteString(s.stdout, cfg.View())
			return err
		}
		var out []settingView
		for _, v := range cfg.Settings() {
			out = append(out, settingView{Key: v.Key, Value: v.Value(), Origin: v.Origin.String()})
		}
		return s.print(out, nil)
	}
	return s.listing(cmd)
}
