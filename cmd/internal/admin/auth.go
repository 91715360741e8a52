package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"strings"

	"github.com/musterdns/muster/cmd/internal/api"
)

// authorize decides whether a request may write. With a token it must bear
// it; without one only requests from this machine may write, so that a server
// whose API listens further is not open to everybody by default.
func (s *Server) authorize(r *http.Request) *api.Error {
	if s.cfg.Token == "" {
		if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && from.Addr().Unmap().IsLoopback() {
			return nil
		}
		return &api.Error{
			Status: http.StatusForbidden, Message: "writing is allowed from this machine only",
			Mend: "set admin.token_file on the server and send the token",
		}
	}
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return &api.Error{
			Status: http.StatusUnauthorized, Message: "writing needs a token",
			Mend: "send it as `Authorization: Bearer TOKEN`, or give the command --token-file",
		}
	}
	// Hashes are compared so that neither content nor length shows in the time.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(s.cfg.Token))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return &api.Error{
			Status: http.StatusForbidden, Message: "the token is wrong",
			Mend: "use the one in the server's admin.token_file",
		}
	}
	return nil
}

// sameOrigin refuses what a browser sends on behalf of another site, and names
// that resolve to this server without being its own (DNS rebinding): without a
// token the API trusts loopback, and a browser is on loopback too.
func (s *Server) sameOrigin(r *http.Request) *api.Error {
	if origin := r.Header.Get("Origin"); origin != "" && !strings.HasSuffix(origin, "://"+r.Host) {
		return &api.Error{Status: http.StatusForbidden, Message: "the request comes from another site's page"}
	}
	if s.cfg.Token != "" {
		return nil
	}
	host := r.Host
	if ap, err := netip.ParseAddrPort(host); err == nil {
		host = ap.Addr().String()
	} else if h, _, ok := strings.Cut(host, ":"); ok && strings.Count(host, ":") == 1 {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || strings.EqualFold(host, "localhost") {
		return nil
	}
	return &api.Error{
		Status: http.StatusForbidden, Message: "the Host header " + quote(host) + " is neither an address nor localhost",
		Mend: "ask by address, or set admin.token_file",
	}
}
