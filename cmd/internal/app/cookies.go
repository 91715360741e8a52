package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/dnsserver/cookie"
)

// How often the shared secrets of DNS cookies are read, how soon again after a
// failure, and how long that may take.
const (
	cookieRead    = time.Minute
	cookieRetry   = 5 * time.Second
	cookieTimeout = 3 * time.Second
)

// shareCookies uses the secrets that the servers of the registry share, and takes
// part in changing them, until ctx ends. Until they are known, and beside them,
// the server has one of its own.
func (s *server) shareCookies(ctx context.Context) error {
	own := s.ownCookies
	for ctx.Err() == nil {
		wait := cookieRead
		if s.cfg.Load().DNS.CookieSecretFile == "" {
			if err := s.readCookies(ctx, own); err != nil {
				s.log.Debug("the shared secret of DNS cookies could not be read; trying again", "error", err)
				wait = cookieRetry
			}
		}
		pause(ctx, wait)
	}
	return nil
}

func (s *server) readCookies(ctx context.Context, own cookie.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, cookieTimeout)
	defer cancel()
	now := time.Now()
	value, err := s.cluster.Share(ctx, "cookies", func(old []byte) ([]byte, error) {
		var c cookie.Shared
		if old != nil && (json.Unmarshal(old, &c) != nil || len(c.Secrets) >= cookie.SecretsMax) {
			c = cookie.Shared{} // what no server can read is made anew
		}
		var fresh cookie.Secret
		_, _ = rand.Read(fresh[:]) // never fails
		c, changed := c.Next(now, fresh)
		if !changed {
			return nil, nil
		}
		return json.Marshal(c)
	})
	if err != nil {
		return err
	}
	var c cookie.Shared
	if err := json.Unmarshal(value, &c); err != nil {
		return fmt.Errorf("the shared secret of DNS cookies: %w", err)
	}
	secrets, err := c.Use(now)
	if err != nil {
		return fmt.Errorf("the shared secret of DNS cookies: %w", err)
	}
	return s.dns.SetCookieSecrets(append(secrets, own))
}

// cookieSecrets are the secrets of the file that the configuration names; without one,
// the server's own until the shared ones are known.
func (s *server) cookieSecrets(cfg *config.Config) ([]cookie.Secret, error) {
	if cfg.DNS.CookieSecretFile == "" {
		return []cookie.Secret{s.ownCookies}, nil
	}
	secrets, err := cfg.DNS.CookieSecrets()
	if err != nil {
		return nil, fmt.Errorf("dns.cookie_secret_file: %w", err)
	}
	return secrets, nil
}
