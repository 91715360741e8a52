package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
)

func (s *session) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show the state of the server as a whole", GroupID: groupLook, Args: arguments(0, 0),
		Example: `  muster status
  muster status --addr http://10.0.0.2:8653 -o yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.api()
			if err != nil {
				return err
			}
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return s.print(st, func(w io.Writer, wide bool) { statusTable(w, &st, wide, time.Now()) })
		},
	}
	return s.listing(s.online(cmd))
}

func statusTable(w io.Writer, st *api.Status, wide bool, now time.Time) {
	line := func(name, text string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(text, args...)) }
	ready := "ready"
	if !st.Ready {
		ready = "not ready: waiting for " + strings.Join(st.Waiting, ", ")
	}
	line("server", "%s, muster %s, up %s, %s", st.Node, st.Version, ago(st.Started, now), ready)
	line("dns", "%s, %s", strings.Join(st.DNS, " "), strconv.FormatUint(st.Queries, 10)+" answered")
	line("admin", "%s", st.Admin)
	r := st.Registry
	switch {
	case r.Snapshot:
		line("registry", "%s %s: away; served from the snapshot, %s old: %s", r.Mode, strings.Join(r.Endpoints, " "), duration(r.Age), r.Error)
	case !r.Connected && r.Age == 0:
		line("registry", "%s %s: not reached yet: %s", r.Mode, strings.Join(r.Endpoints, " "), r.Error)
	case !r.Connected:
		line("registry", "%s %s: away for %s: %s", r.Mode, strings.Join(r.Endpoints, " "), duration(r.Age), r.Error)
	default:
		line("registry", "%s %s: revision %d, at most %s old", r.Mode, strings.Join(r.Endpoints, " "), r.Revision, brief(time.Duration(r.Age)))
	}
	c := st.Instances
	line("services", "%d, %s: %d serving, %d failing, %d drained, %d in maintenance", st.Services, count(c.Total, "instance"), c.Serving, c.Failing, c.Drain, c.Maintenance)
	for _, z := range st.Zones {
		what := ", " + count(z.Services, "service")
		switch z.Source {
		case string(config.SourceFile):
			what = ", " + count(z.Records, "record")
		case string(config.SourceReverse): // it has what the service zones have
			what = ""
		}
		line("zone", "%s %s%s, serial %d", z.Name, z.Source, what, z.Serial)
	}
	for _, m := range st.Members {
		if wide || !m.Self {
			line("member", "%s %s, muster %s, since %s", m.Name, m.Address, m.Version, ago(m.Since, now))
		}
	}
	file := st.Config.File
	if file == "" {
		file = "no file"
	}
	line("config", "%s, read %s ago", file, ago(st.Config.Loaded, now))
	for _, p := range st.Config.Problems {
		line("config", "refused: %s", p)
	}
	if st.Problems > 0 {
		line("problems", "%s cannot be used: see `muster doctor`", count(st.Problems, "record"))
	}
}
