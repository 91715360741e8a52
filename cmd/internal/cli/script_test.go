package cli_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/musterdns/muster/cmd/internal/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"muster":      func() { os.Exit(cli.Main(cli.App{Version: "v1.2.3"})) },
		"worker":      worker,
		"certificate": certificate,
	})
}

// TestRun_scripts runs the scripts of testdata/script. Each has an admin API
// that answers out of the script's own files (see fakeAPI) at $MUSTER_ADDR, and
// a DNS server (see fakeDNS) at $DNS.
func TestRun_scripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			srv := httptest.NewServer(fakeAPI(env.WorkDir))
			env.Defer(srv.Close)
			dnsAddr, stop, err := fakeDNS()
			if err != nil {
				return err
			}
			env.Defer(stop)
			env.Setenv("MUSTER_ADDR", srv.URL)
			env.Setenv("DNS", dnsAddr)
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		RequireExplicitExec: true,
	})
}

// fakeAPI answers GET /v1/x/y with the file v1/x/y.json of dir, and POST with
// v1/x/y.post.json after writing the request's body to v1/x/y.body. A file with
// the ending .error is answered with status 400, .503 with 503. The query is
// appended to the file queries.
func fakeAPI(dir string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		base := filepath.Join(dir, filepath.FromSlash(r.URL.Path))
		log, err := os.OpenFile(filepath.Join(dir, "queries"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintf(log, "%s %s auth=%q last=%q\n", r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), r.Header.Get("Last-Event-ID"))
			log.Close()
		}
		ending := ".json"
		if r.Method == http.MethodPost {
			ending = ".post.json"
			body, err := io.ReadAll(r.Body)
			if err == nil {
				err = os.WriteFile(base+".body", append(body, '\n'), 0o600)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		for suffix, status := range map[string]int{".error": http.StatusBadRequest, ".503": http.StatusServiceUnavailable, ending: http.StatusOK} {
			if r.Header.Get("Last-Event-ID") != "" {
				suffix = ".resumed" + suffix
			}
			if data, err := os.ReadFile(base + suffix); err == nil {
				w.Header().Set("Content-Type", contentType(r.URL.Path))
				w.WriteHeader(status)
				_, _ = w.Write(data)
				return
			}
		}
		http.Error(w, `{"error":{"message":"the script has no file for `+r.URL.Path+`"}}`, http.StatusNotFound)
	})
}

// contentType is that of the API's answers.
func contentType(path string) string {
	switch path {
	case "/v1/events":
		return "text/event-stream"
	case "/readyz":
		return "text/plain; charset=utf-8"
	}
	return "application/json"
}

// fakeDNS answers from a few records over UDP and TCP: big.example. fits no
// datagram, stale.example. has an extended error.
func fakeDNS() (addr string, stop func(), err error) {
	tcp, udp, err := onePort()
	if err != nil {
		return "", nil, err
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = true
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.SetUDPSize(1232)
		m.Extra = append(m.Extra, opt)
		add := func(lines ...string) {
			for _, l := range lines {
				rr, err := dns.NewRR(l)
				if err != nil {
					panic(err)
				}
				m.Answer = append(m.Answer, rr)
			}
		}
		switch name, _, onUDP := q.Question[0].Name, 0, w.LocalAddr().Network() == "udp"; {
		case name == "web.svc.internal." && q.Question[0].Qtype == dns.TypeSRV:
			add("web.svc.internal. 5 IN SRV 0 1 8080 web-1.web.svc.internal.")
		case name == "web.svc.internal.":
			add("web.svc.internal. 5 IN A 10.0.0.1", "web.svc.internal. 5 IN A 10.0.0.2")
		case name == "big.example." && onUDP:
			m.Truncated = true
		case name == "big.example.":
			add(`big.example. 5 IN TXT "whole"`)
		case name == "stale.example.":
			add("stale.example. 5 IN A 10.0.0.9")
			opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeStaleAnswer, ExtraText: "42 s\x1b[31m"})
		default:
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})
	servers := []*dns.Server{{Listener: tcp, Handler: handler}, {PacketConn: udp, Handler: handler}}
	for _, s := range servers {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		go func() { _ = s.ActivateAndServe() }()
		<-ready
	}
	return tcp.Addr().String(), func() {
		for _, s := range servers {
			_ = s.Shutdown()
		}
	}, nil
}

// onePort binds TCP and UDP to the same free port of loopback.
func onePort() (net.Listener, net.PacketConn, error) {
	for try := 1; ; try++ { // a port that is free for one may be taken for the other
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp, nil
		}
		tcp.Close()
		if try == 100 {
			return nil, nil, err
		}
	}
}

// worker is the command of the register tests: it says that it runs, and ends
// with the code of its first argument on SIGTERM, or at once without a second.
func worker() {
	workerMain(strings.Join(os.Args[1:], " "))
}

// certificate is the command "certificate NAME YEAR": it makes NAME.pem, which
// expires when the year begins, and NAME.key.
func certificate() {
	name, year := os.Args[1], os.Args[2]
	until, err := time.Parse("2006", year)
	key, errKey := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err, errKey); err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: until}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	secret, errSecret := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err, errSecret,
		os.WriteFile(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)); err != nil {
		panic(err)
	}
}
