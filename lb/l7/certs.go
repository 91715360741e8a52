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
	"time"
)

// CertificateFile is a certificate with its chain and key, in PEM.
type CertificateFile struct {
	Certificate, Key string // paths
}

// Certificates are certificates from files, which are read again when they
// change. Their Get is a Listener's Certificate. They are safe for concurrent
// use.
type Certificates struct {
	files []CertificateFile
	log   *slog.Logger
	now   atomic.Pointer[certificates]
}

// certificates are those in force. They are immutable.
type certificates struct {
	first  *tls.Certificate
	byName map[string]*tls.Certificate // "shop.example.com", "*.example.com"
	stamps string                      // of the files, to see that they change
}

// LoadCertificates reads certificates. All must be good; at least one is
// needed. The first is for clients that name no server, or an unknown one. log
// may be nil.
func LoadCertificates(files []CertificateFile, log *slog.Logger) (*Certificates, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Certificates{files: files, log: log}
	if len(files) == 0 {
		return nil, errors.New("l7: TLS needs a certificate")
	}
	return c, c.Reload()
}

// Reload reads the files again. When one is bad, those before stay in force.
func (c *Certificates) Reload() error {
	stamps := c.stamps() // before reading: a change meanwhile is seen next time
	next := &certificates{byName: map[string]*tls.Certificate{}, stamps: stamps}
	for _, f := range c.files {
		pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
		if err != nil {
			return fmt.Errorf("loading certificate %s: %w", f.Certificate, err)
		}
		if err := next.add(&pair); err != nil {
			return fmt.Errorf("loading certificate %s: %w", f.Certificate, err)
		}
	}
	c.now.Store(next)
	return nil
}

// add files a certificate under its names; the first of a name stays.
func (c *certificates) add(pair *tls.Certificate) error {
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return err
	}
	pair.Leaf = leaf
	if c.first == nil {
		c.first = pair
	}
	for _, name := range leaf.DNSNames {
		if name = strings.ToLower(name); c.byName[name] == nil {
			c.byName[name] = pair
		}
	}
	return nil
}

// stamps are what of the files tells that they have changed.
func (c *Certificates) stamps() string {
	var b strings.Builder
	for _, f := range c.files {
		for _, path := range []string{f.Certificate, f.Key} {
			if info, err := os.Stat(path); err == nil {
				fmt.Fprintf(&b, "%d %d;", info.ModTime().UnixNano(), info.Size())
			} else {
				b.WriteString("none;")
			}
		}
	}
	return b.String()
}

// certificatePoll is how often the files are looked at.
const certificatePoll = 5 * time.Second

// Run reads the files again when they change, until ctx ends; it returns nil.
// New connections get what was read, those that there are keep what they have.
func (c *Certificates) Run(ctx context.Context) error {
	ticker := time.NewTicker(certificatePoll)
	defer ticker.Stop()
	tried := c.now.Load().stamps
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		stamps := c.stamps()
		if stamps == tried {
			continue
		}
		tried = stamps
		if err := c.Reload(); err != nil {
			// A pair is written file by file: the next look finds it whole.
			c.log.Warn("certificates stay as they were", "error", err)
			continue
		}
		c.log.Info("certificates were loaded again", "expires", c.now.Load().first.Leaf.NotAfter)
	}
}

// Get returns the certificate for a client.
func (c *Certificates) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := c.now.Load()
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if pair := now.byName[name]; pair != nil {
		return pair, nil
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if pair := now.byName["*."+parent]; pair != nil { // one label: RFC 9525 section 6.3
			return pair, nil
		}
	}
	return now.first, nil
}
