package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/dnsserver/doh"
	"github.com/musterdns/muster/dnsserver/doq"
	"github.com/musterdns/muster/lb/l7"
)

// encrypted is what DNS needs beside dnsserver for transports that nobody can listen
// in on. Nil parts: not configured.
type encrypted struct {
	certificates *l7.Certificates
	https        *doh.Server
	quic         *doq.Server
}

// certificate is the certificate for a client of DNS over TLS.
func (e *encrypted) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return e.certificates.Get(hello)
}

// loadCertificates loads the certificates of DNS, if any are named.
func (s *server) loadCertificates(cfg *config.Config) error {
	if len(cfg.DNS.Certificates) == 0 {
		return nil
	}
	var err error
	s.encrypted.certificates, err = s.certificates(cfg.DNS.Certificates, s.log.With("part", "dns"))
	return err
}

// certificates loads certificates of a list, of which secrets are in the registry.
func (s *server) certificates(list []config.Certificate, log *slog.Logger) (*l7.Certificates, error) {
	files := make([]l7.CertificateFile, 0, len(list))
	for _, c := range list {
		files = append(files, l7.CertificateFile{Certificate: c.Cert, Key: c.Key, Secret: c.Secret})
	}
	return l7.LoadCertificates(files, func(ctx context.Context, name string) ([]byte, error) {
		return s.cluster.Share(ctx, "certificates/"+name, func([]byte) ([]byte, error) { return nil, nil })
	}, log)
}

// buildEncrypted makes the servers of HTTPS and QUIC, in front of dns.
func (s *server) buildEncrypted(cfg *config.Config) (err error) {
	tcp := cfg.DNS.TCP
	if len(cfg.DNS.HTTPS) > 0 {
		s.encrypted.https, err = doh.New(doh.Config{
			Listen: cfg.DNS.HTTPS, Exchanger: s.dns, Certificate: s.encrypted.certificate, ProxyFrom: cfg.DNS.ProxyFrom, Inherited: s.opt.Sockets.Take,
			MaxConns: tcp.MaxConnections, MaxConnsPerIP: tcp.MaxPerClient, Logger: s.log.With("part", "dns"),
		})
		if err != nil {
			return err
		}
	}
	if len(cfg.DNS.QUIC) > 0 {
		s.encrypted.quic, err = doq.New(doq.Config{
			Listen: cfg.DNS.QUIC, Exchanger: s.dns, Certificate: s.encrypted.certificate, ProxyFrom: cfg.DNS.ProxyFrom, Inherited: s.opt.Sockets.Take,
			MaxConns: tcp.MaxConnections, MaxConnsPerIP: tcp.MaxPerClient,
		})
	}
	return err
}

// listen binds what is configured. The error is told by the key.
func (e *encrypted) listen() error {
	if e.https != nil {
		if err := e.https.Listen(); err != nil {
			return notListening("dns.https", err)
		}
	}
	if e.quic != nil {
		if err := e.quic.Listen(); err != nil {
			return notListening("dns.quic", err)
		}
	}
	return nil
}

// run answers until ctx ends.
func (e *encrypted) run(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	if e.certificates != nil {
		parts.Go(func() error { return e.certificates.Run(ctx) })
	}
	if e.https != nil {
		parts.Go(func() error { return e.https.Run(ctx) })
	}
	if e.quic != nil {
		parts.Go(func() error { return e.quic.Run(ctx) })
	}
	return parts.Wait()
}

func (e *encrypted) sockets() map[string]syscall.Conn {
	all := map[string]syscall.Conn{}
	if e.https != nil {
		maps.Copy(all, e.https.Sockets())
	}
	if e.quic != nil {
		maps.Copy(all, e.quic.Sockets())
	}
	return all
}

// refused is how many connections, and streams of QUIC, were closed at once, at a limit.
func (e *encrypted) refused() (n uint64) {
	if e.https != nil {
		n += e.https.Refused()
	}
	if e.quic != nil {
		n += e.quic.Refused()
	}
	return n
}

// badHeaders is how many connections and datagrams of proxies began with no PROXY header.
func (e *encrypted) badHeaders() (n uint64) {
	if e.https != nil {
		n += e.https.BadHeaders()
	}
	if e.quic != nil {
		n += e.quic.BadHeaders()
	}
	return n
}

// urls are where DNS is answered, by transport: "tls://127.0.0.1:853".
func (s *server) urls() []string {
	var out []string
	add := func(scheme string, list []netip.AddrPort, path string) {
		for _, a := range list {
			out = append(out, fmt.Sprintf("%s://%s%s", scheme, a, path))
		}
	}
	add("tls", s.dns.TLSAddrs(), "")
	if h := s.encrypted.https; h != nil {
		add("https", h.Addrs(), doh.Path)
	}
	if q := s.encrypted.quic; q != nil {
		add("quic", q.Addrs(), "")
	}
	return out
}
