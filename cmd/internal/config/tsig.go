package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/musterdns/muster/dnsserver/tsig"
	"github.com/musterdns/muster/dnsserver/wire"
)

// keySecret finds the secret in what tsig-keygen writes.
var keySecret = regexp.MustCompile(`secret\s+"([^"]*)"`)

// ReadKeys reads the secrets of Keys.
func (c *Config) ReadKeys() ([]tsig.Key, error) {
	keys := make([]tsig.Key, 0, len(c.Keys))
	for i, k := range c.Keys {
		key := tsig.Key{Algorithm: k.Algorithm}
		var err error
		if key.Name, err = wire.ParseName(k.Name); err == nil {
			key.Secret, err = readSecret(k.SecretFile)
		}
		if err == nil {
			_, err = tsig.New([]tsig.Key{key})
		}
		if err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// readSecret reads a secret in base64, alone or as tsig-keygen writes it.
func readSecret(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	encoded := strings.TrimSpace(string(text))
	if m := keySecret.FindStringSubmatch(encoded); m != nil {
		encoded = m[1]
	}
	secret, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New(file + ": is no secret in base64: make one with tsig-keygen") // and is not shown
	}
	return secret, nil
}
