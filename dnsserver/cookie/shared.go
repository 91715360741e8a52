package cookie

import (
	"encoding/hex"
	"slices"
	"time"
)

// How servers change their common secret, by RFC 9018 section 5: all know the
// next one before the first cookie is made with it, and the one before until the
// last made with that has gone bad.
const (
	rotation = 24 * time.Hour
	notice   = 10 * time.Minute // each server reads the secrets well within it
	overlap  = 70 * time.Minute // a cookie's life, and clocks that differ
)

// Shared is what servers share to take each other's cookies, the oldest secret
// first.
type Shared struct {
	Secrets []Dated `json:"secrets"`
}

// Dated is a secret with the time from which cookies are made with it.
type Dated struct {
	Secret string    `json:"secret"` // 32 hexadecimal digits
	From   time.Time `json:"from"`
}

// Next is what is to be shared from now on, and whether that is something else.
// fresh is a random secret, for a new one.
func (s Shared) Next(now time.Time, fresh Secret) (Shared, bool) {
	out := Shared{slices.Clone(s.Secrets)}
	for len(out.Secrets) > 1 && now.Sub(out.Secrets[1].From) > overlap {
		out.Secrets = out.Secrets[1:]
	}
	text := hex.EncodeToString(fresh[:])
	switch n := len(out.Secrets); {
	case n == 0:
		out.Secrets = []Dated{{text, now}}
	case now.Sub(out.Secrets[n-1].From) > rotation:
		out.Secrets = append(out.Secrets, Dated{text, now.Add(notice)})
	default:
		return out, n != len(s.Secrets)
	}
	return out, true
}

// Use is the secrets as a Jar takes them: first the newest whose time has come,
// then all others.
func (s Shared) Use(now time.Time) ([]Secret, error) {
	var out []Secret
	making := 0
	for i, d := range s.Secrets {
		secret, err := ParseSecret(d.Secret)
		if err != nil {
			return nil, err
		}
		if !d.From.After(now) {
			making = i
		}
		out = append(out, secret)
	}
	if len(out) > 0 {
		out[0], out[making] = out[making], out[0]
	}
	return out, nil
}
