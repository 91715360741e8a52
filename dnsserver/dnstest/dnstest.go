// Package dnstest has an in-process DNS server and dig-like questions and
// assertions for tests. It decodes with miekg/dns, never with package wire, so
// that a fault of ours cannot hide itself.
//
//	s := dnstest.Start(t, handler)
//	resp := s.Query(t, "web.svc.internal. A +edns")
//	dnstest.Want(t, resp, "NOERROR qr aa edns; !tc !ra", "answer web.svc.internal. 5 IN A 10.0.0.11")
package dnstest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
)

const (
	// patience is how long an answer may take that must come.
	patience = 10 * time.Second
	// silence is how long a test waits for an answer that must not come.
	silence = 200 * time.Millisecond
)

// Server is a server that answers a test's questions.
type Server struct {
	Addr netip.AddrPort // for UDP and TCP
	// Server is the server itself, for its Stats; nil when made by At.
	Server *dnsserver.Server
	stop   func() error
}

// At is a server that runs already, in this process or another.
func At(addr netip.AddrPort) *Server { return &Server{Addr: addr} }

// Start runs a server with handler h on a free port of 127.0.0.1, until the test
// ends; Stop ends it earlier. It waits for the first query of a connection as long
// as tests wait for answers, since a test may be held up between connecting and
// asking. edit, if given, changes its configuration first.
func Start(t testing.TB, h dnsserver.Handler, edit ...func(*dnsserver.Config)) *Server {
	t.Helper()
	cfg := dnsserver.Config{
		Listen:  []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
		Workers: 2,
		Handler: h,

		FirstByteTimeout: patience,
	}
	for _, f := range edit {
		f(&cfg)
	}
	srv, err := dnsserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	s := &Server{Addr: srv.Addrs()[0], Server: srv}
	s.stop = func() error {
		s.stop = func() error { return nil }
		cancel()
		return <-ended
	}
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// Stop stops a server made by Start and waits for it.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.stop(); err != nil {
		t.Errorf("server: %v", err)
	}
}

// Query asks as dig does: a name, a type, and words out of +tcp, +edns,
// +bufsize=N, +dnssec (both of these mean +edns), +recurse, +cd, +ad, +nsid,
// +ch (class CHAOS), +opcode=N. Without words the question goes over UDP, with
// neither EDNS nor recursion desired. The test fails when no answer comes, or
// one that does not belong to the question.
func (s *Server) Query(t testing.TB, question string) *dns.Msg {
	t.Helper()
	m, network, err := parseQuestion(question)
	if err != nil {
		t.Fatalf("%s: %v", question, err)
	}
	packed, err := m.Pack()
	if err != nil {
		t.Fatalf("%s: %v", question, err)
	}
	raw := s.Exchange(t, network, packed)
	resp := Unpack(t, raw)
	if resp.Id != m.Id || resp.Opcode != m.Opcode || len(resp.Question) == 1 && resp.Question[0] != m.Question[0] {
		t.Fatalf("%s: the answer is to something else:\n%s", question, resp)
	}
	return resp
}

// parseQuestion reads Query's line.
func parseQuestion(line string) (m *dns.Msg, network string, err error) {
	words := strings.Fields(line)
	if len(words) < 2 {
		return nil, "", errors.New("want a name, a type and words")
	}
	qtype, ok := dns.StringToType[strings.ToUpper(words[1])]
	if !ok {
		n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToUpper(words[1]), "TYPE"), 10, 16)
		if err != nil {
			return nil, "", fmt.Errorf("no type %q", words[1])
		}
		qtype = uint16(n)
	}
	m = new(dns.Msg)
	m.Id = uint16(rand.Uint32())
	m.Question = []dns.Question{{Name: dns.Fqdn(words[0]), Qtype: qtype, Qclass: dns.ClassINET}}
	network = "udp"
	for _, w := range words[2:] {
		if w == "+tcp" {
			network = "tcp"
		} else if err := applyWord(m, w); err != nil {
			return nil, "", err
		}
	}
	return m, network, nil
}

func applyWord(m *dns.Msg, word string) error {
	edns := func() *dns.OPT {
		if m.IsEdns0() == nil {
			m.SetEdns0(1232, false)
		}
		return m.IsEdns0()
	}
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "+edns":
		edns()
	case "+bufsize", "+opcode":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return err
		}
		if key == "+opcode" {
			m.Opcode = int(n)
		} else {
			edns().SetUDPSize(uint16(n))
		}
	case "+dnssec":
		edns().SetDo()
	case "+nsid":
		o := edns()
		o.Option = append(o.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	case "+recurse":
		m.RecursionDesired = true
	case "+cd":
		m.CheckingDisabled = true
	case "+ad":
		m.AuthenticatedData = true
	case "+ch":
		m.Question[0].Qclass = dns.ClassCHAOS
	default:
		return fmt.Errorf("no word %q", word)
	}
	return nil
}

// Exchange sends octets over "udp" or "tcp" as they are (TCP: with their length
// before them) and returns the answer. The test fails when none comes.
func (s *Server) Exchange(t testing.TB, network string, msg []byte) []byte {
	t.Helper()
	answer, err := s.exchange(t.Context(), network, msg, patience)
	if err != nil {
		t.Fatalf("%s %x: %v", network, msg, err)
	}
	return answer
}

// Silent fails the test when an answer to msg comes within 200 ms.
func (s *Server) Silent(t testing.TB, network string, msg []byte) {
	t.Helper()
	answer, err := s.exchange(t.Context(), network, msg, silence)
	if err == nil {
		t.Fatalf("%s %x: got the answer %x, want none", network, msg, answer)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF) {
		t.Fatalf("%s %x: %v", network, msg, err)
	}
}

func (s *Server) exchange(ctx context.Context, network string, msg []byte, wait time.Duration) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, s.Addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	if network == "tcp" {
		msg = append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
	}
	if _, err := conn.Write(msg); err != nil {
		return nil, err
	}
	if network == "tcp" {
		return ReadMsg(conn)
	}
	buf := make([]byte, dns.MaxMsgSize)
	n, err := conn.Read(buf)
	return buf[:n], err
}

// ReadMsg reads one message with its length before it.
func ReadMsg(r io.Reader) ([]byte, error) {
	var prefix [2]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(prefix[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// Unpack has the oracle read a message.
func Unpack(t testing.TB, msg []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(msg); err != nil {
		t.Fatalf("unreadable message %x: %v", msg, err)
	}
	return m
}
