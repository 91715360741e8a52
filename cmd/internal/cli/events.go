package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) eventsCommand() *cobra.Command {
	var filter api.EventFilter
	cmd := &cobra.Command{
		Use: "events [SERVICE]", Short: "Print what happens, as it happens", GroupID: groupLook,
		Args: arguments(0, 1), ValidArgsFunction: s.completeServices,
		Long: `Prints what happens, a line each: registrations, health, drains, modes, problems. It
goes on where it was when the connection breaks; end it with Ctrl-C. -o json prints
one JSON object a line.`,
		Example: `  muster events
  muster events web -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.api()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if filter.Service, filter.Zone, err = s.serviceName(cmd.Context(), args[0], filter.Zone); err != nil {
					return err
				}
				_, err := c.Service(cmd.Context(), filter.Zone, filter.Service)
				if absent, ok := errors.AsType[*api.Error](err); ok && absent.Status == http.StatusNotFound {
					fmt.Fprintf(s.stderr, "muster: %v; waiting for it\n", absent)
				}
			}
			lost := func(err error) { fmt.Fprintf(s.stderr, "muster: %v; trying again\n", err) }
			err = c.Events(cmd.Context(), filter, api.EventHooks{Lost: lost}, s.printEvent)
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().Uint64Var(&filter.Since, "since", 0, "begin after the event with this `id`, if the server still has it")
	return s.listing(s.online(zoned(cmd, &filter.Zone)))
}

func (s *session) printEvent(e api.Event) error {
	switch s.output {
	case formatJSON:
		return json.NewEncoder(s.stdout).Encode(e)
	case formatYAML:
		fmt.Fprintln(s.stdout, "---")
		return writeYAML(s.stdout, e)
	case formatTable, formatWide:
	}
	var b strings.Builder
	b.WriteString(e.At.Local().Format("15:04:05.000"))
	if s.output == formatWide {
		fmt.Fprintf(&b, " %d", e.ID)
	}
	fmt.Fprintf(&b, " %-16s", e.Kind)
	if e.Service != "" {
		b.WriteString(" " + e.Service)
		if e.Instance != "" {
			b.WriteString("/" + e.Instance)
		}
	}
	switch {
	case e.From != "" && e.To != "":
		fmt.Fprintf(&b, " %s -> %s", e.From, e.To)
	case e.To != "":
		b.WriteString(" " + e.To)
	}
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	}
	_, err := fmt.Fprintln(s.stdout, strings.TrimRight(b.String(), " "))
	return err
}
