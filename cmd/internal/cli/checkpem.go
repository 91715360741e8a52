package cli

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/musterdns/muster/cmd/internal/config"
)

// pemCheck prints what is wrong with the certificates, keys and passwords that a
// configuration names, and counts it.
type pemCheck struct {
	s              *session
	cfg            *config.Config
	errs, warnings int
}

// all checks what a server, its registry's client and the proxy are given.
func (c *pemCheck) all() {
	if e := &c.cfg.Registry.Etcd; c.cfg.Registry.Mode == config.RegistryEtcd {
		c.password("registry.etcd.password_file", e.PasswordFile)
		c.trust("registry.etcd.ca", e.CA)
		c.pair("registry.etcd", e.Cert, e.Key)
	}
	c.certificates("dns", c.cfg.DNS.Certificates)
	for i := range c.cfg.Proxy.Listeners {
		c.certificates(fmt.Sprintf("proxy.listeners[%d]", i), c.cfg.Proxy.Listeners[i].Certificates)
	}
	for i := range c.cfg.Proxy.InstanceTLS {
		t, at := &c.cfg.Proxy.InstanceTLS[i], fmt.Sprintf("proxy.instance_tls[%d]", i)
		c.trust(at+".ca", t.CA)
		c.pair(at, t.Cert, t.Key)
	}
}

// password checks that there is one in the file.
func (c *pemCheck) password(key, path string) {
	if text := c.read(key, path); text != nil && len(bytes.TrimRight(text, "\r\n")) == 0 {
		c.bad(key, path, "is empty", "write the password into it")
	}
}

func (c *pemCheck) bad(key, path, reason, mend string) {
	c.errs++
	fmt.Fprintln(c.s.stdout, config.Problem{Origin: c.cfg.Where(key), Key: key, Reason: fmt.Sprintf("%q: %s", path, reason), Mend: mend})
}

func (c *pemCheck) warn(key, path, reason, mend string) {
	c.warnings++
	fmt.Fprintln(c.s.stdout, config.Problem{Origin: c.cfg.Where(key), Key: key, Reason: fmt.Sprintf("%q: %s", path, reason), Mend: mend, Warning: true})
}

// read reads the file that a key names; nil: it cannot be read, or there is
// none.
func (c *pemCheck) read(key, path string) []byte {
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		c.errs += c.s.missing(c.cfg, key, path, err)
		return nil
	}
	return text
}

// certificates checks pairs of files; secrets are in the registry.
func (c *pemCheck) certificates(at string, list []config.Certificate) {
	for i, pair := range list {
		if pair.Secret == "" {
			c.pair(fmt.Sprintf("%s.certificates[%d]", at, i), pair.Cert, pair.Key)
		}
	}
}

// pair checks a certificate and its key, at the keys cert and key of at.
func (c *pemCheck) pair(at, certPath, keyPath string) {
	cert, key := c.read(at+".cert", certPath), c.read(at+".key", keyPath)
	if cert == nil || key == nil {
		return
	}
	leaf := first(cert)
	_, err := tls.X509KeyPair(cert, key)
	switch {
	case leaf == nil:
		c.bad(at+".cert", certPath, "holds no certificate in PEM", "name the file of the certificate, followed by those that it is signed with")
	case err == nil:
		c.dates(at+".cert", certPath, leaf)
	case !hasKey(key):
		c.bad(at+".key", keyPath, "holds no private key in PEM", "name the file of the certificate's key")
	case strings.Contains(err.Error(), "does not match"):
		c.bad(at+".key", keyPath, fmt.Sprintf("is not the key of the certificate in %q", certPath), "name the key that the certificate was made for")
	default:
		c.bad(at+".key", keyPath, err.Error(), "name a certificate and its own key, neither of them encrypted")
	}
}

// trust checks a file with those who may sign.
func (c *pemCheck) trust(key, path string) {
	text := c.read(key, path)
	if text == nil {
		return
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		c.bad(key, path, "holds no certificate in PEM", "name a file with the certificates of those who may sign")
		return
	}
	var last *x509.Certificate // the one that is good for longest
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && (last == nil || cert.NotAfter.After(last.NotAfter)) {
			last = cert
		}
	}
	if last != nil {
		c.dates(key, path, last)
	}
}

// dates warns of a certificate that is not good now: it can be loaded, and may
// be replaced without a restart.
func (c *pemCheck) dates(key, path string, cert *x509.Certificate) {
	const form = "2006-01-02 15:04:05 MST"
	switch now := time.Now(); {
	case now.After(cert.NotAfter):
		c.warn(key, path, "the certificate expired on "+cert.NotAfter.UTC().Format(form), "renew it: whoever verifies it refuses it")
	case now.Before(cert.NotBefore):
		c.warn(key, path, "the certificate is good from "+cert.NotBefore.UTC().Format(form)+" on", "wait, or set this machine's clock")
	}
}

// first is the first certificate of a text in PEM; nil: it has none.
func first(text []byte) *x509.Certificate {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			return cert
		}
		return nil
	}
	return nil
}

// hasKey reports whether a text in PEM has a private key.
func hasKey(text []byte) bool {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return true
		}
	}
	return false
}
