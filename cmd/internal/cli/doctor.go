package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
)

func (s *session) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong, where, and what to do about it", GroupID: groupLook, Args: arguments(0, 0),
		Long: `Says what the server finds wrong (records that cannot be used, services without a
healthy instance, a registry that is away, limits of the system), and what is wrong
with the configuration on this machine. It fails when something does not work.`,
		Example: `  muster doctor
  muster doctor --config /etc/muster/muster.yaml -o json`,
	}
	file := configFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		found := append([]api.Finding{}, localFindings(config.Options{File: *file, Flags: cmd.Flags()})...)
		c, err := s.api()
		if err != nil {
			return err
		}
		remote, err := c.Doctor(cmd.Context())
		if errors.Is(err, api.ErrUnreachable) {
			found = append(found, api.Finding{
				Severity: api.SeverityError, Subject: "server", Problem: err.Error(),
				Mend: "start one with `muster dev` or `muster serve`, or say where it is with --addr or MUSTER_ADDR",
			})
		} else if err != nil {
			return err
		}
		found = append(found, remote.Findings...)
		slices.SortStableFunc(found, func(a, b api.Finding) int { return severityRank(a.Severity) - severityRank(b.Severity) })
		if err := s.print(api.Doctor{Findings: found}, func(w io.Writer, _ bool) { findings(w, found) }); err != nil {
			return err
		}
		if slices.ContainsFunc(found, func(f api.Finding) bool { return f.Severity == api.SeverityError }) {
			return &codeError{code: exitFailed}
		}
		return nil
	}
	return s.listing(s.online(cmd))
}

// severityRank orders severities, gravest first.
func severityRank(v api.Severity) int {
	return slices.Index([]api.Severity{api.SeverityError, api.SeverityWarning, api.SeverityInfo}, v)
}

// localFindings are the problems of the configuration on this machine.
func localFindings(o config.Options) []api.Finding {
	_, problems := config.Load(o)
	var out []api.Finding
	for _, p := range problems {
		f := api.Finding{Severity: api.SeverityError, Subject: p.Origin.String(), Problem: p.Reason, Mend: p.Mend}
		if p.Warning {
			f.Severity = api.SeverityWarning
		}
		if p.Key != "" {
			f.Problem = p.Key + ": " + f.Problem
		}
		out = append(out, f)
	}
	return out
}

func findings(w io.Writer, found []api.Finding) {
	if len(found) == 0 {
		fmt.Fprintln(w, "nothing is wrong")
	}
	for _, f := range found {
		fmt.Fprintf(w, "%s: %s: %s\n", f.Severity, f.Subject, f.Problem)
		if f.Mend != "" {
			fmt.Fprintf(w, "  %s\n", f.Mend)
		}
	}
}
