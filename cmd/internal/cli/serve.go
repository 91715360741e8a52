package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/config"
)

func (s *session) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run a server", GroupID: groupServer, Args: arguments(0, 0),
		Long: `Runs a server until SIGINT or SIGTERM.

The configuration is muster.yaml in the working directory or /etc/muster, or what
--config names; every key of it is a flag and an environment variable too (muster
config reference). On SIGHUP, and when the file changes, it is read again; when it
cannot be used then, the old one stays in force and the problems are logged.`,
		Example: `  muster serve
  muster serve --config /etc/muster/muster.yaml
  muster serve --dns-listen 10.0.0.2:53 --registry-mode etcd --registry-etcd-endpoints https://etcd-1:2379`,
	}
	return s.serving(cmd, false, false)
}

func (s *session) devCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a server with sample instances, to try things out", GroupID: groupServer, Args: arguments(0, 0),
		Long: `Runs a server with its own etcd, and sample instances that serve HTTP at 127.0.1.x.

Ask it with dig or muster query, and make instances ill with muster demo. It takes
the configuration of muster serve, so that its files and flags can be tried too, but
keeps nothing: its etcd starts empty unless --registry-embedded-dir says where.`,
		Example: `  muster dev
  dig @127.0.0.1 -p 5300 web.svc.internal
  muster demo kill web-1`,
	}
	return s.serving(cmd, true, false)
}

func (s *session) proxyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "proxy", Short: "Run the companion proxy alone, without DNS", GroupID: groupServer,
		Long: `Runs the listeners of proxy.listeners and the admin API, and no DNS, until SIGINT or
SIGTERM. muster serve runs both. It reads the same registry, and checks the same
instances, by the same configuration as muster serve.`,
		Example: `  muster proxy --registry-mode etcd --registry-etcd-endpoints https://etcd-1:2379 \
    --proxy-listeners '[{name: web, listen: "0.0.0.0:80", mode: http, service: web}]'
  muster proxy status`,
	}
	return verbs(s.serving(cmd, false, true), s.proxyStatusCommand())
}

// serving adds to a verb what runs a server.
func (s *session) serving(cmd *cobra.Command, dev, proxy bool) *cobra.Command {
	file := configFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		load := func() (*config.Config, config.Problems) {
			return config.Load(config.Options{File: *file, Flags: cmd.Flags(), Throwaway: dev})
		}
		cfg, problems := load()
		for _, p := range problems {
			if p.Warning {
				fmt.Fprintln(s.stderr, p)
			}
		}
		if err := problems.Err(); err != nil {
			return fmt.Errorf("the configuration cannot be used:\n%w", err)
		}
		if proxy && len(cfg.Proxy.Listeners) == 0 {
			return usagef("there is nothing to run: name listeners in proxy.listeners or --proxy-listeners (muster config reference)")
		}
		return s.app.Serve(cmd.Context(), ServeOptions{
			Config: cfg, Reload: load, Dev: dev, Proxy: proxy, Version: s.app.Version, Stdout: s.stdout, Stderr: s.stderr,
		})
	}
	return cmd
}

// configFlags adds the flags of a verb that reads a configuration.
func configFlags(cmd *cobra.Command) *string {
	file := cmd.Flags().String("config", os.Getenv("MUSTER_CONFIG"), "the configuration `file` (MUSTER_CONFIG)")
	config.AddFlags(cmd.Flags())
	return file
}
