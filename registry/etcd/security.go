package etcd

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
)

// passwordMax is the greatest size of a password file in bytes: what is larger
// is some other file.
const passwordMax = 4096

// checkEndpoints says what of the endpoints cannot be used, and refuses what
// would send the registry and its password readable over a network.
func checkEndpoints(cfg Config) error {
	if len(cfg.Endpoints) == 0 {
		return errors.New("etcd: endpoints: there is none; write one, as http://127.0.0.1:2379")
	}
	for _, endpoint := range cfg.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.Port() == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("etcd: endpoints: %q: write a URL with a port, as http://127.0.0.1:2379", endpoint)
		}
		if u.Scheme != schemeOf(cfg.Endpoints[0]) {
			return fmt.Errorf("etcd: endpoints: %q: write http or https for all of them", endpoint)
		}
		if u.Scheme == "http" && !cfg.Insecure && !isLoopback(u.Hostname()) {
			return fmt.Errorf("etcd: endpoints: %q: http to another machine: use https, or set insecure", endpoint)
		}
		if u.Scheme == "http" && (cfg.CAFile != "" || cfg.CertFile != "" || cfg.KeyFile != "") {
			return fmt.Errorf("etcd: endpoints: %q: certificates are configured, but the URL is http: use https", endpoint)
		}
	}
	return nil
}

func schemeOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Scheme
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// readPassword reads a password file.
func readPassword(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("etcd: password_file: %w", err)
	}
	raw = bytes.TrimRight(raw, "\r\n")
	if len(raw) == 0 || len(raw) > passwordMax {
		return "", fmt.Errorf("etcd: password_file: %q holds no password: want 1 to %d bytes, have %d", path, passwordMax, len(raw))
	}
	return string(raw), nil
}

// tlsFiles makes the TLS configuration of https endpoints.
type tlsFiles struct {
	roots     *x509.CertPool // nil: the system's
	cert, key string         // empty: no client certificate
}

// newTLSFiles reads the files once, so that what is wrong with them is said at
// start. It returns nil for http.
func newTLSFiles(cfg Config) (*tlsFiles, error) {
	if schemeOf(cfg.Endpoints[0]) != "https" {
		return nil, nil
	}
	t := &tlsFiles{cert: cfg.CertFile, key: cfg.KeyFile}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("etcd: ca: %w", err)
		}
		t.roots = x509.NewCertPool()
		if !t.roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd: ca: %q holds no certificate in PEM form", cfg.CAFile)
		}
	}
	if (t.cert == "") != (t.key == "") {
		return nil, errors.New("etcd: cert and key: one is set and the other is not")
	}
	if t.cert != "" {
		if _, err := t.load(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// config returns the TLS configuration; nil for http.
func (t *tlsFiles) config() *tls.Config {
	if t == nil {
		return nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: t.roots}
	if t.cert != "" {
		// Read at each handshake: a renewed certificate needs no restart.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.load() }
	}
	return cfg
}

func (t *tlsFiles) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(t.cert, t.key)
	if err != nil {
		return nil, fmt.Errorf("etcd: cert %q, key %q: %w", t.cert, t.key, err)
	}
	return &pair, nil
}
