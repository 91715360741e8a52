package l7

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/musterdns/muster/lb/l7/http1"
)

// macSize is how much of HMAC-SHA256 signs a sticky cookie: nobody guesses 128
// bits, and the cookie goes out with every request.
const macSize = 16

// cookie returns the value of a cookie that the client sends (RFC 6265 section
// 5.4).
func cookie(fields []http1.Field, name string) (string, bool) {
	for i := range fields {
		if fields[i].Known != http1.Cookie {
			continue
		}
		for pair := range strings.SplitSeq(fields[i].Value, ";") {
			key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if ok && key == name {
				return strings.Trim(value, `"`), true
			}
		}
	}
	return "", false
}

// sign is the signature of an instance's id within the service of a route.
func (p *Proxy) sign(t *target, id string) []byte {
	mac := hmac.New(sha256.New, p.cfg.Secret)
	ref := &t.backend.ref
	mac.Write([]byte(strings.Join([]string{"muster sticky 1", strconv.Itoa(int(ref.Source)), ref.Service, ref.Port, ref.Tag, id}, "\x00")))
	return mac.Sum(nil)[:macSize]
}

// stickyID returns the instance that a cookie names; empty when its signature
// is wrong. Whoever could make one up could choose the instance that everybody
// whom he gives it to burdens.
func (p *Proxy) stickyID(t *target, value string) string {
	id, sum, ok := strings.Cut(value, ".")
	if !ok {
		return ""
	}
	given, err := base64.RawURLEncoding.DecodeString(sum)
	if err != nil || !hmac.Equal(given, p.sign(t, id)) {
		return ""
	}
	return id
}

// stickyCookie is the Set-Cookie value that keeps the client to the exchange's
// instance. It lasts as long as the browser's session does.
func (p *Proxy) stickyCookie(x *exchange) string {
	value := x.target.route.Sticky + "=" + x.instance + "." + base64.RawURLEncoding.EncodeToString(p.sign(x.target, x.instance)) +
		"; Path=/; HttpOnly; SameSite=Lax"
	if x.hop.secure {
		value += "; Secure"
	}
	return value
}
