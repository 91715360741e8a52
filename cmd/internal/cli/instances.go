package cli

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
)

func (s *session) instancesCommand() *cobra.Command {
	var zone string
	cmd := &cobra.Command{
		Use: "instances [SERVICE]", Short: "List the instances, and why each is in or out", GroupID: groupLook,
		Args: arguments(0, 1), ValidArgsFunction: s.completeServices,
		Example: `  muster instances
  muster instances web -o wide`,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := s.instances(cmd, args, zone)
			if err != nil {
				return err
			}
			return s.print(list, func(w io.Writer, wide bool) {
				instancesHead(w, wide)
				for i := range list.Instances {
					instanceRow(w, &list.Instances[i], wide, time.Now())
				}
			})
		},
	}
	return s.listing(s.online(zoned(cmd, &zone)))
}

// instances asks for the instances of the service in args, or all.
func (s *session) instances(cmd *cobra.Command, args []string, zone string) (api.InstanceList, error) {
	c, err := s.api()
	if err != nil {
		return api.InstanceList{}, err
	}
	service := ""
	if len(args) == 1 {
		if service, zone, err = s.serviceName(cmd.Context(), args[0], zone); err != nil {
			return api.InstanceList{}, err
		}
	}
	return c.Instances(cmd.Context(), zone, service)
}

func instancesHead(w io.Writer, wide bool) {
	cells := []string{"INSTANCE", "ADDRESS", "IN", "HEALTH", "SINCE", "ADMIN", "WEIGHT", "WHY"}
	if wide {
		cells = append(cells, "DOMAIN", "TIER", "TAGS", "LOCALITY", "LEASED", "LOAD")
	}
	row(w, cells...)
}

func instanceRow(w io.Writer, in *api.Instance, wide bool, now time.Time) {
	state := ""
	if in.Admin != nil {
		state = string(in.Admin.State)
	}
	cells := []string{
		in.Service + "/" + in.ID, addresses(in.Addresses, in.Port), yesNo(in.Serving), in.Health.String(),
		ago(in.Since, now), state, strconv.Itoa(int(in.Weight)), in.Why,
	}
	if wide {
		cells = append(cells, in.Domain, strconv.Itoa(int(in.Priority)), strings.Join(in.Tags, ","),
			strings.Trim(in.Region+"/"+in.Locality, "/"), yesNo(in.Leased), load(in.Load))
	}
	row(w, cells...)
}

// load is what an instance last said of its load: 1 is full.
func load(l *api.Load) string {
	switch {
	case l == nil:
		return ""
	case l.Load >= 0:
		return strconv.FormatFloat(l.Load, 'f', 2, 64)
	case l.Capacity > 0:
		return fmt.Sprintf("%d/%d", l.Active, l.Capacity)
	default:
		return strconv.Itoa(l.Active)
	}
}

// addresses is an instance's addresses with its default port, if it has one.
func addresses(list []netip.Addr, port uint16) string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
		if port != 0 {
			out[i] = netip.AddrPortFrom(a, port).String()
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
