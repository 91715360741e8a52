package config

import (
	"fmt"
	"os"
	"strings"

	"github.com/musterdns/muster/dnsserver/cookie"
)

// Token reads TokenFile; without one it is empty. White space around it is no part
// of it.
func (a *Admin) Token() (string, error) {
	if a.TokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(a.TokenFile)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("%s is empty: write a token of your own into it", a.TokenFile)
	}
	return token, nil
}

// CookieSecrets reads CookieSecretFile; without one there are none.
func (d *DNS) CookieSecrets() ([]cookie.Secret, error) {
	if d.CookieSecretFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(d.CookieSecretFile)
	if err != nil {
		return nil, err
	}
	var secrets []cookie.Secret
	for word := range strings.FieldsSeq(string(text)) {
		secret, err := cookie.ParseSecret(word)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.CookieSecretFile, err) // and is not shown
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 || len(secrets) > cookie.SecretsMax {
		return nil, fmt.Errorf("%s has %d secrets: write 1 to %d of 32 hexadecimal digits", d.CookieSecretFile, len(secrets), cookie.SecretsMax)
	}
	return secrets, nil
}
