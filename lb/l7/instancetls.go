package l7

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
)

// InstanceTLSFiles says how instances are spoken to over TLS. Zero fields are
// the defaults that they name.
type InstanceTLSFiles struct {
	// ServerName is asked for (SNI) and must stand in the instance's
	// certificate; empty: the service's name within its zone.
	ServerName string
	CA         string // path of PEM: who may have signed instances' certificates; empty: whom the system trusts
	// Certificate and Key are shown to instances that ask for a certificate:
	// paths of PEM, both or none.
	Certificate, Key string
	Insecure         bool // any certificate of an instance is taken
}

// InstanceTLS is InstanceTLSFiles as read, and read again when they change. It
// is safe for concurrent use.
type InstanceTLS struct {
	files InstanceTLSFiles
	log   *slog.Logger
	now   atomic.Pointer[tls.Config] // is never written to

	loaded string // the files' stamps before they were read first
}

// LoadInstanceTLS reads the files. log may be nil.
func LoadInstanceTLS(files InstanceTLSFiles, log *slog.Logger) (*InstanceTLS, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &InstanceTLS{files: files, log: log}
	t.loaded = t.stamps()
	return t, t.Reload()
}

// Reload reads the files again. When one is bad, those before stay in force.
// New connections take what was read, those that there are stay.
func (t *InstanceTLS) Reload() error {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.files.Insecure} //nolint:gosec // the configuration says so
	if t.files.CA != "" {
		text, err := os.ReadFile(t.files.CA)
		if err != nil {
			return fmt.Errorf("reading who signs instances' certificates: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("reading who signs instances' certificates: %s holds no certificate in PEM", t.files.CA)
		}
	}
	if t.files.Certificate != "" || t.files.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.files.Certificate, t.files.Key)
		if err != nil {
			return fmt.Errorf("loading certificate %s: %w", t.files.Certificate, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	t.now.Store(cfg)
	return nil
}

// Run reads the files again when they change, until ctx ends; it returns nil.
func (t *InstanceTLS) Run(ctx context.Context) error {
	return follow(ctx, t.loaded, t.stamps, t.again)
}

// again loads what has changed.
func (t *InstanceTLS) again() {
	if err := t.Reload(); err != nil {
		// A pair of files is written one by one: the next look finds it whole.
		t.log.Warn("the settings of TLS to instances stay as they were", "error", err)
		return
	}
	t.log.Info("the settings of TLS to instances were loaded again")
}

// stamps are what of the files tells that they have changed.
func (t *InstanceTLS) stamps() string {
	var b strings.Builder
	for _, path := range []string{t.files.CA, t.files.Certificate, t.files.Key} {
		writeStamp(&b, path)
	}
	return b.String()
}

// client is how a connection to an instance of a service begins: with the name
// of the service where the files say none, and the protocols that may be spoken.
func (t *InstanceTLS) client(service string, protocols []string) *tls.Config {
	cfg := t.now.Load().Clone()
	cfg.ServerName, cfg.NextProtos = t.files.ServerName, protocols
	if cfg.ServerName == "" {
		cfg.ServerName = service
	}
	return cfg
}

// The names of protocols in ALPN (RFC 7301 section 6, RFC 9113 section 3.2).
const (
	alpnHTTP1 = "http/1.1"
	alpnHTTP2 = "h2"
)

// errNoHTTP2 is what a connection over which HTTP/2 is to be spoken fails with.
var errNoHTTP2 = errors.New("TLS: the instance does not agree to HTTP/2")

// certificateFault is what is wrong with an instance's certificate, in words
// without the names that it is for, which are nobody else's business; empty:
// err is of something else.
func certificateFault(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		return ""
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the instance's certificate is signed by somebody who is not trusted"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "the instance's certificate is for other names"
	}
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok && bad.Reason == x509.Expired {
		return "the instance's certificate has expired, or is not valid yet"
	}
	return "the instance's certificate is not good"
}
