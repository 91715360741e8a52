package dnsserver_test

import (
	"encoding/hex"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/cookie"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/wire"
)

// withOptions asks web.svc.internal. A with EDNS options over a network.
func withOptions(t testing.TB, s *dnstest.Server, network string, options ...dns.EDNS0) *dns.Msg {
	t.Helper()
	return exchangeMsg(t, s, network, askWith(options...))
}

func askWith(options ...dns.EDNS0) *dns.Msg {
	m := new(dns.Msg).SetQuestion("web.svc.internal.", dns.TypeA).SetEdns0(1232, false)
	m.IsEdns0().Option = options
	return m
}

func exchangeMsg(t testing.TB, s *dnstest.Server, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return dnstest.Unpack(t, s.Exchange(t, network, packed))
}

// optionOf is the first option of a response that is a T.
func optionOf[T dns.EDNS0](m *dns.Msg) (T, bool) {
	for _, o := range m.IsEdns0().Option {
		if o, ok := o.(T); ok {
			return o, true
		}
	}
	var none T
	return none, false
}

func cookieOption(text string) *dns.EDNS0_COOKIE {
	return &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: text}
}

const clientCookie = "2464c4abcf10c957"

// TestServer_NSID (RFC 5001 section 2.2): sent when asked for, in answers and
// errors, and never else.
func TestServer_NSID(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address), func(c *dnsserver.Config) { c.NSID = "dns-1" })
	nsid := &dns.EDNS0_NSID{Code: dns.EDNS0NSID}
	for _, network := range []string{"udp", "tcp"} {
		if got, ok := optionOf[*dns.EDNS0_NSID](withOptions(t, s, network, nsid)); !ok || got.Nsid != hex.EncodeToString([]byte("dns-1")) {
			t.Errorf("%s: got %v", network, got)
		}
		if m := withOptions(t, s, network); len(m.IsEdns0().Option) != 0 {
			t.Errorf("%s: options without being asked: %v", network, m)
		}
		m := askWith(nsid)
		m.Opcode = dns.OpcodeStatus
		if _, ok := optionOf[*dns.EDNS0_NSID](exchangeMsg(t, s, network, m)); !ok {
			t.Errorf("%s: none in an error", network)
		}
	}
	if err := s.Server.SetNSID(""); err != nil {
		t.Fatal(err)
	}
	if m := withOptions(t, s, "udp", nsid); len(m.IsEdns0().Option) != 0 {
		t.Errorf("a server that hides its name tells %v", m)
	}
	if err := s.Server.SetNSID(string(make([]byte, dnsserver.NSIDMax+1))); err == nil {
		t.Error("too long a name is taken")
	}
}

// TestServer_Keepalive (RFC 7828 section 3.3.2): told over TCP when asked for,
// never over UDP.
func TestServer_Keepalive(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address))
	ask := &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}
	if got, ok := optionOf[*dns.EDNS0_TCP_KEEPALIVE](withOptions(t, s, "tcp", ask)); !ok || got.Timeout != 100 {
		t.Errorf("tcp: got %v, want 10 s", got)
	}
	if m := withOptions(t, s, "udp", ask); len(m.IsEdns0().Option) != 0 {
		t.Errorf("udp: got %v", m)
	}
}

// TestServer_PaddingInTheClear: RFC 7830 section 6 has no use for it there.
func TestServer_PaddingInTheClear(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address))
	for _, network := range []string{"udp", "tcp"} {
		if m := withOptions(t, s, network, &dns.EDNS0_PADDING{Padding: make([]byte, 80)}); len(m.IsEdns0().Option) != 0 {
			t.Errorf("%s: got %v", network, m)
		}
	}
}

// TestServer_Cookies (RFC 7873 section 5.2): a client's cookie comes back with
// ours behind it, over either transport and in errors too; ours shows that the
// client's address is no forgery.
func TestServer_Cookies(t *testing.T) {
	known := make(chan bool, 1)
	s := dnstest.Start(t, handlerFunc(func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
		known <- from.Known
		return address(b, q, from)
	}))
	for _, network := range []string{"udp", "tcp"} {
		first, ok := optionOf[*dns.EDNS0_COOKIE](withOptions(t, s, network, cookieOption(clientCookie)))
		if !ok || len(first.Cookie) != 2*(cookie.ClientSize+cookie.ServerSize) || first.Cookie[:16] != clientCookie {
			t.Fatalf("%s: got %v", network, first)
		}
		if is := <-known; is != (network == "tcp") {
			t.Errorf("%s with a client cookie: known %v", network, is)
		}
		again, _ := optionOf[*dns.EDNS0_COOKIE](withOptions(t, s, network, cookieOption(first.Cookie)))
		if again == nil || again.Cookie != first.Cookie {
			t.Errorf("%s: got %v, want the fresh cookie again (RFC 9018 section 4.3)", network, again)
		}
		if !<-known {
			t.Errorf("%s: not known by its cookie", network)
		}
		// The last digit of its hash is another; it must stay a hexadecimal digit.
		last := "0"
		if strings.HasSuffix(first.Cookie, last) {
			last = "1"
		}
		forged := first.Cookie[:len(first.Cookie)-1] + last
		m := withOptions(t, s, network, cookieOption(forged))
		if got, _ := optionOf[*dns.EDNS0_COOKIE](m); m.Rcode != dns.RcodeSuccess || got == nil || got.Cookie == forged {
			t.Errorf("%s: a wrong cookie without load is answered with %v", network, m)
		}
		if is := <-known; is != (network == "tcp") {
			t.Errorf("%s with a wrong cookie: known %v", network, is)
		}
	}
	if st := s.Server.Stats().UDP; st.CookiesNew != 1 || st.CookiesValid != 1 || st.CookiesInvalid != 1 {
		t.Errorf("stats %+v", st)
	}
}

// TestServer_Cookies_Confirming (RFC 7873 section 5.4): a query of nothing but a
// cookie.
func TestServer_Cookies_Confirming(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(func(*wire.Builder, *wire.Query, *dnsserver.Client) dnsserver.Verdict {
		t.Error("the handler is asked")
		return dnsserver.Drop
	}))
	confirm := func(network, text string) (*dns.Msg, string) {
		m := askWith(cookieOption(text))
		m.Question = nil
		resp := exchangeMsg(t, s, network, m)
		got, ok := optionOf[*dns.EDNS0_COOKIE](resp)
		if !ok || len(got.Cookie) != 48 || len(resp.Answer)+len(resp.Ns)+len(resp.Question) != 0 {
			t.Fatalf("%s: got %s", network, resp)
		}
		return resp, got.Cookie
	}
	for _, network := range []string{"udp", "tcp"} {
		m, first := confirm(network, clientCookie)
		if m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: a client cookie gets %s", network, dns.RcodeToString[m.Rcode])
		}
		if m, _ := confirm(network, first); m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: a valid cookie gets %s", network, dns.RcodeToString[m.Rcode])
		}
		if m, _ := confirm(network, clientCookie+first[:32]); m.Rcode != dns.RcodeBadCookie {
			t.Errorf("%s: a wrong cookie gets %s", network, dns.RcodeToString[m.Rcode])
		}
	}
	if st := s.Server.Stats(); st.UDP.RCodes[wire.RCodeBadCookie] != 1 || st.UDP.RCodes[wire.RCodeNoError] != 2 {
		t.Errorf("stats %+v", st.UDP)
	}
}

// TestServer_Cookies_SharedSecret (RFC 9018 section 1): servers with one secret
// take each other's cookies.
func TestServer_Cookies_SharedSecret(t *testing.T) {
	var known atomic.Bool
	h := handlerFunc(func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
		known.Store(from.Known)
		return address(b, q, from)
	})
	one, other := dnstest.Start(t, h), dnstest.Start(t, h)
	of := func(s *dnstest.Server, text string) string {
		got, _ := optionOf[*dns.EDNS0_COOKIE](withOptions(t, s, "udp", cookieOption(text)))
		return got.Cookie
	}
	given := of(one, clientCookie)
	if of(other, given); known.Load() {
		t.Error("servers with secrets of their own know each other's clients")
	}
	secret := cookie.Secret(slices.Repeat([]byte("muster!!"), 2))
	for _, s := range []*dnstest.Server{one, other} {
		if err := s.Server.SetCookieSecrets([]cookie.Secret{secret}); err != nil {
			t.Fatal(err)
		}
	}
	given = of(one, clientCookie)
	if of(other, given); !known.Load() {
		t.Error("servers with one secret do not know each other's clients")
	}
}

// TestServer_Defer_Options: a deferred query's response has the options that it
// asked for, also when that fails.
func TestServer_Defer_Options(t *testing.T) {
	deferred := handlerFunc(func(*wire.Builder, *wire.Query, *dnsserver.Client) dnsserver.Verdict { return dnsserver.Defer })
	s := dnstest.Start(t, deferred, func(c *dnsserver.Config) { c.NSID = "dns-1" })
	m := withOptions(t, s, "udp", &dns.EDNS0_NSID{Code: dns.EDNS0NSID}, cookieOption(clientCookie))
	if m.Rcode != dns.RcodeServerFailure || len(m.IsEdns0().Option) != 2 {
		t.Errorf("got %s", m)
	}
}
