package cli

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) servicesCommand() *cobra.Command {
	var zone string
	cmd := &cobra.Command{
		Use: "services", Short: "List the services and how they fare", GroupID: groupLook, Args: arguments(0, 0),
		Example: `  muster services
  muster services -o json | jq -r '.services[] | select(.mode != "normal") | .domain'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.api()
			if err != nil {
				return err
			}
			list, err := c.Services(cmd.Context(), zone)
			if err != nil {
				return err
			}
			return s.print(list, func(w io.Writer, wide bool) { servicesTable(w, list.Services, wide) })
		},
	}
	return s.listing(s.online(zoned(cmd, &zone)))
}

func servicesTable(w io.Writer, list []api.Service, wide bool) {
	cells := []string{"SERVICE", "SERVING", "FAILING", "ADMIN", "MODE", "POLICY", "TTL"}
	if wide {
		cells = append(cells, "DOMAIN", "ANSWERS", "FAIL", "CHECKS")
	}
	row(w, cells...)
	for _, sv := range list {
		cells := []string{
			sv.Name, fmt.Sprintf("%d/%d", sv.Counts.Serving, sv.Counts.Total), strconv.Itoa(sv.Counts.Failing),
			strconv.Itoa(sv.Counts.Drain + sv.Counts.Maintenance), modeOf(&sv), sv.Policy, duration(sv.TTL),
		}
		if wide {
			cells = append(cells, sv.Domain, answers(sv.MaxAnswers), sv.Fail, strconv.Itoa(len(sv.Checks)))
		}
		row(w, cells...)
	}
}

// modeOf is how a service is answered.
func modeOf(sv *api.Service) string {
	if sv.Frozen {
		return string(sv.Mode) + ", frozen"
	}
	return string(sv.Mode)
}

// answers is a service's max_answers.
func answers(n int) string {
	if n == 0 {
		return "auto"
	}
	return strconv.Itoa(n)
}
