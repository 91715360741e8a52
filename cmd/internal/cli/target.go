package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
)

// targetHelp is the part of the help about naming an instance.
const targetHelp = `An instance is named as SERVICE/INSTANCE, or as it is asked for in DNS:
web/web-1, web-1.web and web-1.web.svc.internal are the same.`

// target names an instance of a service, or all of them.
type target struct {
	zone     string // empty: the server's default
	service  string
	instance string // or api.AllInstances
}

func (t target) String() string {
	if t.instance == api.AllInstances {
		return "all of " + t.service
	}
	return t.service + "/" + t.instance
}

// target reads the name of an instance; with all, arg names a service.
func (s *session) target(ctx context.Context, arg, zone string, all bool) (target, error) {
	if all {
		name, zone, err := s.serviceName(ctx, arg, zone)
		return target{zone: zone, service: name, instance: api.AllInstances}, err
	}
	arg = strings.ToLower(arg)
	service, instance, slash := strings.Cut(arg, "/")
	if !slash {
		instance, service, slash = strings.Cut(arg, ".")
	}
	if !slash || service == "" || instance == "" || strings.Contains(instance, "/") {
		return target{}, usagef("%q names no instance: write SERVICE/INSTANCE, as in web/web-1", arg)
	}
	if instance == api.AllInstances {
		return target{}, usagef("%q: write the service alone with --all", arg)
	}
	name, zone, err := s.serviceName(ctx, service, zone)
	return target{zone: zone, service: name, instance: instance}, err
}

// serviceName takes the zone off a service's name when it was given as a
// domain name. Names without a dot need no asking which zones there are.
func (s *session) serviceName(ctx context.Context, name, zone string) (string, string, error) {
	name = strings.ToLower(name)
	if zone != "" || !strings.Contains(name, ".") {
		return name, zone, nil
	}
	c, err := s.api()
	if err != nil {
		return "", "", err
	}
	st, err := c.Status(ctx)
	if err != nil {
		return "", "", err
	}
	absolute := strings.TrimSuffix(name, ".") + "."
	for _, z := range st.Zones {
		if rest, ok := strings.CutSuffix(absolute, "."+z.Name); ok && config.ZoneSource(z.Source).Services() {
			return rest, z.Name, nil
		}
	}
	if strings.HasSuffix(name, ".") {
		return "", "", usagef("%q is in no service zone of this server", name)
	}
	return name, "", nil
}

// completionTimeout bounds how long a TAB waits for the server.
const completionTimeout = time.Second

// completeInstances proposes SERVICE/INSTANCE for the first argument.
func (s *session) completeInstances(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.complete(cmd, args, func(ctx context.Context, c *api.Client) ([]string, error) {
		list, err := c.Instances(ctx, "", "")
		var out []string
		for _, in := range list.Instances {
			out = append(out, in.Service+"/"+in.ID)
		}
		return out, err
	})
}

// completeServices proposes services for the first argument.
func (s *session) completeServices(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.complete(cmd, args, func(ctx context.Context, c *api.Client) ([]string, error) {
		list, err := c.Services(ctx, "")
		var out []string
		for _, sv := range list.Services {
			out = append(out, sv.Name)
		}
		return out, err
	})
}

func (s *session) complete(cmd *cobra.Command, args []string, ask func(context.Context, *api.Client) ([]string, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := s.api()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	names, err := ask(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
