package cli

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/etcd"
)

// etcdFlags say which etcd a registration is held in.
type etcdFlags struct {
	endpoints, prefix         string
	username, passwordFile    string
	caFile, certFile, keyFile string
	insecure                  bool
}

func (f *etcdFlags) flags(fs *pflag.FlagSet) {
	fs.StringVar(&f.endpoints, "etcd", os.Getenv("MUSTER_ETCD"), "`URLs` of etcd, with commas (MUSTER_ETCD); default: what the server uses")
	fs.StringVar(&f.prefix, "prefix", registry.DefaultPrefix, "with --etcd: what the zone's keys begin with")
	fs.StringVar(&f.username, "etcd-username", "", "whom to log in to etcd as")
	fs.StringVar(&f.passwordFile, "etcd-password-file", "", "a `file` with the password")
	fs.StringVar(&f.caFile, "etcd-ca", "", "a PEM `file` with the authorities of etcd's certificates")
	fs.StringVar(&f.certFile, "etcd-cert", "", "a PEM `file` with the certificate to show etcd")
	fs.StringVar(&f.keyFile, "etcd-key", "", "a PEM `file` with its key")
	fs.BoolVar(&f.insecure, "etcd-insecure", false, "allow plain http to an etcd of another host")
}

// open returns the source that the keys of the zone are in.
func (f *etcdFlags) open(ctx context.Context, s *session, zone string) (*etcd.Client, *etcd.Source, error) {
	endpoints, prefix := strings.Split(f.endpoints, ","), f.prefix
	if f.endpoints == "" {
		var err error
		if endpoints, prefix, err = s.discover(ctx, zone); err != nil {
			return nil, nil, err
		}
	}
	client, err := etcd.New(etcd.Config{
		Endpoints: endpoints, Username: f.username, PasswordFile: f.passwordFile,
		CAFile: f.caFile, CertFile: f.certFile, KeyFile: f.keyFile, Insecure: f.insecure,
	})
	if err != nil {
		return nil, nil, err
	}
	source, err := client.Source(1, prefix) // the only source of this process
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return client, source, nil
}

// etcdHint adds to an error of etcd's which flag is missing.
func etcdHint(err error) error {
	if err == nil {
		return nil
	}
	for _, h := range [...]struct{ part, hint string }{
		{"user name is empty", "give --etcd-username and --etcd-password-file"},
		{"permission denied", "let the user's role write there"},
		{"signed by unknown authority", "name the file of the CA that signed etcd's certificate with --etcd-ca"},
		{"remote error: tls: ", "show etcd a certificate that it trusts with --etcd-cert and --etcd-key"},
	} {
		if strings.Contains(err.Error(), h.part) {
			return fmt.Errorf("%w: %s", err, h.hint)
		}
	}
	return err
}

// discover asks the server which etcd it uses, and for the prefix of the zone:
// the one named, or the first service zone.
func (s *session) discover(ctx context.Context, zone string) (endpoints []string, prefix string, err error) {
	c, err := s.api()
	if err != nil {
		return nil, "", err
	}
	st, err := c.Status(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("asking the server which etcd it uses (--etcd names one): %w", err)
	}
	server, err := url.Parse(c.Addr())
	if err != nil {
		return nil, "", err
	}
	for _, e := range st.Registry.Endpoints {
		if u, err := url.Parse(e); err == nil && isLoopback(u.Hostname()) && !isLoopback(server.Hostname()) {
			return nil, "", fmt.Errorf("the server's etcd listens at %s of its own host alone: run this there, or name an etcd with --etcd", e)
		}
	}
	zone = strings.ToLower(strings.TrimSuffix(zone, ".") + ".")
	for _, z := range st.Zones {
		if config.ZoneSource(z.Source).Services() && (zone == "." || z.Name == zone) {
			return st.Registry.Endpoints, z.Prefix, nil
		}
	}
	return nil, "", usagef("--zone %s: is no service zone of the server", zone)
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
