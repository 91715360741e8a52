package l7

import (
	"context"
	"crypto/sha256"
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

// CertificateFile is a certificate with its chain and key, in PEM: two files, or a
// secret that has both.
type CertificateFile struct {
	Certificate, Key string // paths
	Secret           string // the name of the secret, in the place of files
}

// Certificates are certificates from files and secrets, which are read again when they
// change. Their Get is a Listener's Certificate. They are safe for concurrent use.
type Certificates struct {
	files []CertificateFile
	read  func(ctx context.Context, secret string) ([]byte, error)
	log   *slog.Logger
	now   atomic.Pointer[certificates]

	// By the secrets' names, and Run's alone: what was read last, the last that was good,
	// and why one could not be read.
	secrets map[string][]byte
	good    map[string]*tls.Certificate
	failing map[string]string
}

// certificates are those in force. They are immutable.
type certificates struct {
	first  *tls.Certificate
	byName map[string]*tls.Certificate // "shop.example.com", "*.example.com"
	stamps string                      // of the files, to see that they change
}

// LoadCertificates reads certificates. At least one is needed, and those from files must
// be good; secrets are read by Run, by means of read, and until then clients that need
// one are turned away. The first is for clients that name no server, or an unknown one.
// log may be nil.
func LoadCertificates(files []CertificateFile, read func(ctx context.Context, secret string) ([]byte, error), log *slog.Logger) (*Certificates, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Certificates{files: files, read: read, log: log, secrets: map[string][]byte{}, good: map[string]*tls.Certificate{}, failing: map[string]string{}}
	if len(files) == 0 {
		return nil, errors.New("l7: TLS needs a certificate")
	}
	return c, c.Reload()
}

// Reload reads the files again. When one is bad, all stay as they were; a secret that is
// bad stays as it was, alone.
func (c *Certificates) Reload() error {
	stamps := c.stamps() // before reading: a change meanwhile is seen next time
	next := &certificates{byName: map[string]*tls.Certificate{}, stamps: stamps}
	var bad error
	for _, f := range c.files {
		pair, err := c.load(f)
		if err != nil {
			err = fmt.Errorf("loading certificate %s%s: %w", f.Certificate, f.Secret, err)
			if f.Secret == "" {
				return err
			}
			bad, pair = errors.Join(bad, err), c.good[f.Secret]
		}
		if pair == nil {
			continue
		}
		if f.Secret != "" {
			c.good[f.Secret] = pair
		}
		next.add(pair)
	}
	c.now.Store(next)
	return bad
}

// load is one certificate; nil: the secret is not known yet.
func (c *Certificates) load(f CertificateFile) (*tls.Certificate, error) {
	var pair tls.Certificate
	var err error
	if f.Secret == "" {
		pair, err = tls.LoadX509KeyPair(f.Certificate, f.Key)
	} else {
		text := c.secrets[f.Secret]
		if text == nil {
			return nil, nil
		}
		pair, err = tls.X509KeyPair(text, text)
	}
	if err == nil {
		pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
	}
	if err != nil {
		return nil, err
	}
	return &pair, nil
}

// add files a certificate under its names; the first of a name stays.
func (c *certificates) add(pair *tls.Certificate) {
	if c.first == nil {
		c.first = pair
	}
	for _, name := range pair.Leaf.DNSNames {
		if name = strings.ToLower(name); c.byName[name] == nil {
			c.byName[name] = pair
		}
	}
}

// stamps are what of the files tells that they have changed.
func (c *Certificates) stamps() string {
	var b strings.Builder
	for _, f := range c.files {
		if f.Secret != "" {
			fmt.Fprintf(&b, "%x;", sha256.Sum256(c.secrets[f.Secret]))
			continue
		}
		for _, path := range []string{f.Certificate, f.Key} {
			writeStamp(&b, path)
		}
	}
	return b.String()
}

// writeStamp adds what of a file tells that it has changed.
func writeStamp(b *strings.Builder, path string) {
	if info, err := os.Stat(path); err == nil {
		fmt.Fprintf(b, "%d %d;", info.ModTime().UnixNano(), info.Size())
	} else {
		b.WriteString("none;")
	}
}

// certificatePoll is how often files and secrets are looked at, and secretTimeout how
// long that may take.
const (
	certificatePoll = 5 * time.Second
	secretTimeout   = 3 * time.Second
)

// Run reads the secrets, and everything again when it changes, until ctx ends; it returns
// nil. New connections get what was read, those that there are keep what they have.
func (c *Certificates) Run(ctx context.Context) error {
	return follow(ctx, c.now.Load().stamps, func() string {
		c.readSecrets(ctx)
		return c.stamps()
	}, c.again)
}

// follow calls changed when what stamps says is not what was tried last, now and again
// until ctx ends; it returns nil.
func follow(ctx context.Context, tried string, stamps func() string, changed func()) error {
	ticker := time.NewTicker(certificatePoll)
	defer ticker.Stop()
	for {
		if now := stamps(); now != tried {
			tried = now
			changed()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// again loads what has changed.
func (c *Certificates) again() {
	if err := c.Reload(); err != nil {
		// A pair of files is written one by one: the next look finds it whole.
		c.log.Warn("a certificate stays as it was", "error", err)
		return
	}
	if first := c.now.Load().first; first != nil {
		c.log.Info("certificates were loaded again", "expires", first.Leaf.NotAfter)
	}
}

// readSecrets reads the secrets. One that cannot be read stays as it was.
func (c *Certificates) readSecrets(ctx context.Context) {
	for _, f := range c.files {
		if f.Secret == "" {
			continue
		}
		reading, cancel := context.WithTimeout(ctx, secretTimeout)
		text, err := c.read(reading, f.Secret)
		cancel()
		if err == nil && text == nil {
			err = errors.New("is not there")
		}
		if err != nil {
			if why := err.Error(); c.failing[f.Secret] != why && c.secrets[f.Secret] == nil { // else it is known from before
				c.log.Warn("a certificate's secret cannot be read; trying again", "secret", f.Secret, "error", err)
				c.failing[f.Secret] = why
			}
			continue
		}
		delete(c.failing, f.Secret)
		c.secrets[f.Secret] = text
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
	if now.first == nil {
		return nil, errors.New("no certificate is known yet")
	}
	return now.first, nil
}
