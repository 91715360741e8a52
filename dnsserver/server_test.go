package dnsserver_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/wire"
)

// handlerFunc is a Handler of one function.
type handlerFunc func(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict

func (f handlerFunc) ServeDNS(b *wire.Builder, q *wire.Query, from *dnsserver.Client) dnsserver.Verdict {
	return f(b, q, from)
}

// address answers every question with one A record, 10.0.0.1.
func address(b *wire.Builder, _ *wire.Query, _ *dnsserver.Client) dnsserver.Verdict {
	b.SetAA(true)
	b.A(wire.Answer, wire.RefQName, 5, [4]byte{10, 0, 0, 1})
	return dnsserver.Send
}

// large answers every question with as many 200-octet TXT records as the question's
// first label has octets, and TC where they do not fit.
func large(b *wire.Builder, q *wire.Query, _ *dnsserver.Client) dnsserver.Verdict {
	rdata := append([]byte{199}, strings.Repeat("x", 199)...)
	for range len(q.Name.Label(0)) * 10 {
		if !b.RR(wire.Answer, wire.RefQName, wire.TypeTXT, wire.ClassIN, 5, rdata) {
			b.SetTC()
			break
		}
	}
	return dnsserver.Send
}

func TestServer_AnswersOverBothTransports(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address))
	for _, words := range []string{"", "+tcp", "+edns", "+tcp +edns"} {
		resp := s.Query(t, "Web.svc.internal. A +recurse +cd "+words)
		want := "NOERROR qr aa rd cd; !tc !ra !ad "
		if strings.Contains(words, "+edns") {
			want += "edns"
		} else {
			want += "!edns"
		}
		dnstest.Want(t, resp, want, "answer Web.svc.internal. 5 IN A 10.0.0.1")
	}
	st := s.Server.Stats()
	if st.UDP.Received != 2 || st.UDP.RCodes[0] != 2 || st.TCP.Received != 2 || st.TCP.RCodes[0] != 2 || st.ConnsAccepted != 2 {
		t.Errorf("stats %+v", st)
	}
}

// TestServer_ErrorsAreTheSameOverBothTransports: one set of rules for all
// transports (as not in CVE-2026-86003).
func TestServer_ErrorsAreTheSameOverBothTransports(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(func(*wire.Builder, *wire.Query, *dnsserver.Client) dnsserver.Verdict {
		t.Error("the handler is asked")
		return dnsserver.Drop
	}))
	q := "\x4d\x55%s\x00\x00\x00\x00\x00\x00\x03www\x04conf\x04test\x00\x00\x01\x00\x01"
	for _, row := range []struct{ sentence, flagsAndCount, tail, status string }{
		{"junk after the question", "\x00\x00\x00\x01", "junk", "FORMERR qr; !aa !tc !ra !edns"},
		{"UPDATE", "\x28\x00\x00\x01", "", "REFUSED qr; !aa !tc !ra !edns"},
		{"NOTIFY", "\x20\x00\x00\x01", "", "NOTIMP qr; !aa !tc !ra !edns"},
		{"an unknown opcode", "\x78\x00\x00\x01", "", "NOTIMP qr; !aa !tc !ra !edns"},
	} {
		msg := []byte(strings.Replace(q, "%s", row.flagsAndCount, 1) + row.tail)
		for _, network := range []string{"udp", "tcp"} {
			t.Run(row.sentence+" over "+network, func(t *testing.T) {
				dnstest.Want(t, dnstest.Unpack(t, s.Exchange(t, network, msg)), row.status)
			})
		}
	}
	response := []byte(strings.Replace(q, "%s", "\x80\x00\x00\x01", 1))
	s.Silent(t, "udp", response)
	s.Silent(t, "tcp", response)
	s.Silent(t, "udp", response[:11])
	eventually(t, "what nobody answers is counted", func() bool {
		st := s.Server.Stats()
		return st.UDP.Ignored == 2 && st.TCP.Ignored == 1
	})
	if st := s.Server.Stats(); st.UDP.Ignored != 2 || st.UDP.Rejected != 4 || st.TCP.Rejected != 4 || st.TCP.Ignored != 1 || st.UDP.RCodes[wire.RCodeNotImp] != 2 {
		t.Errorf("stats %+v", st)
	}
}

func TestServer_BadVersIsCountedAsSuch(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(address))
	msg := []byte("\x4d\x55\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x01\x00\x00\x00\x00")
	dnstest.Want(t, dnstest.Unpack(t, s.Exchange(t, "udp", msg)), "BADVERS qr edns; !aa")
	if st := s.Server.Stats(); st.UDP.RCodes[wire.RCodeBadVers] != 1 || st.UDP.RCodes[wire.RCodeNoError] != 0 {
		t.Errorf("stats %+v", st.UDP)
	}
}

func TestServer_LimitsOfReplies(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(large))
	for _, row := range []struct {
		words  string
		octets int // at most, and less than a record of 212 short of it when truncated
		tc     bool
	}{
		{"aa. TXT", 512, true},
		{"aa. TXT +bufsize=100", 512, true}, // RFC 6891 section 6.2.3
		{"aa. TXT +bufsize=800", 800, true},
		{"aa. TXT +bufsize=1232", 1232, true},
		{"aa. TXT +bufsize=65535", 1232, true},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa. TXT +tcp", 300*212 + 48, false},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa. TXT +tcp", 65535, true},
	} {
		resp := s.Query(t, row.words)
		resp.Compress = true
		if n := resp.Len(); n > row.octets || n <= row.octets-212 || resp.Truncated != row.tc {
			t.Errorf("%s: %d octets, TC %v; want at most %d, %v", row.words, n, resp.Truncated, row.octets, row.tc)
		}
	}
	if st := s.Server.Stats(); st.UDP.Truncated != 5 || st.TCP.Truncated != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestServer_DropSendsNothing(t *testing.T) {
	s := dnstest.Start(t, handlerFunc(func(*wire.Builder, *wire.Query, *dnsserver.Client) dnsserver.Verdict { return dnsserver.Drop }))
	query := []byte("\x4d\x55\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01")
	s.Silent(t, "udp", query)
	s.Silent(t, "tcp", query)
	eventually(t, "one is dropped over each", func() bool {
		st := s.Server.Stats()
		return st.UDP.Dropped == 1 && st.TCP.Dropped == 1
	})
}

// TestServer_Listen_AllOrNone: a port that is taken, for either transport, is an
// error that names it, and nothing stays bound.
func TestServer_Listen_AllOrNone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	takenAddr := netip.MustParseAddrPort(taken.Addr().String())
	free := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), takenAddr.Port())
	s, err := dnsserver.New(dnsserver.Config{Listen: []netip.AddrPort{free, takenAddr}, Handler: handlerFunc(address)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), takenAddr.String()) {
		t.Fatalf("got %v, want the address in use", err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run without sockets is no error")
	}
	again, err := net.Listen("tcp", free.String())
	if err != nil {
		t.Fatalf("the address before the taken one is still bound: %v", err)
	}
	again.Close()
}

func TestServer_Listen_Port0IsTheSameForBoth(t *testing.T) {
	any4, any6 := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")
	s := dnstest.Start(t, handlerFunc(address), func(c *dnsserver.Config) { c.Listen = []netip.AddrPort{any4, any4, any6} })
	addrs := s.Server.Addrs()
	if len(addrs) != 3 || addrs[0].Port() == 0 || addrs[0] == addrs[1] || addrs[2].Addr() != any6.Addr() {
		t.Fatalf("bound %v", addrs)
	}
	for _, a := range addrs {
		for _, words := range []string{"a. A", "a. A +tcp"} {
			dnstest.Want(t, dnstest.At(a).Query(t, words), "NOERROR", "answer a. 5 IN A 10.0.0.1")
		}
	}
}

func TestNew_NamesTheBadField(t *testing.T) {
	good := dnsserver.Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Handler: handlerFunc(address)}
	if _, err := dnsserver.New(good); err != nil {
		t.Fatal(err)
	}
	for field, edit := range map[string]func(*dnsserver.Config){
		"Listen":      func(c *dnsserver.Config) { c.Listen = nil },
		"invalid":     func(c *dnsserver.Config) { c.Listen = []netip.AddrPort{{}} },
		"Handler":     func(c *dnsserver.Config) { c.Handler = nil },
		"Workers: -1": func(c *dnsserver.Config) { c.Workers = -1 },
		"Workers: 5":  func(c *dnsserver.Config) { c.Workers = 5000 },
		"MaxConns:":   func(c *dnsserver.Config) { c.MaxConns = -2 },
		"IdleTimeout": func(c *dnsserver.Config) { c.IdleTimeout = -time.Second },
	} {
		c := good
		edit(&c)
		if _, err := dnsserver.New(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("want an error that names %s, got %v", field, err)
		}
	}
}

// TestServer_Run_AnswersWhatWasReceivedBeforeTheStop: queries that wait in the
// kernel when the order to stop comes get their answers.
func TestServer_Run_AnswersWhatWasReceivedBeforeTheStop(t *testing.T) {
	s, err := dnsserver.New(dnsserver.Config{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Workers: 1, Handler: handlerFunc(address), FirstByteTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	udp, err := net.Dial("udp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	query := "\x4d\x55\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"
	const queries = 200 // as many answers as the test's own receive buffer holds
	for range queries {
		if _, err := udp.Write([]byte(query)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 20*time.Second { // far from what the connection may be silent
		t.Errorf("stopping took %s", took)
	}
	buf := make([]byte, 512)
	if err := udp.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for i := range queries {
		if _, err := udp.Read(buf); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
	if _, err := net.Dial("tcp", s.Addrs()[0].String()); err == nil {
		t.Error("the port is still open")
	}
}

// A connection on which nothing was asked yet when the order to stop came was
// closed after 50 ms, so that an upgrade under load reset clients whose query was
// on its way.
func TestServer_Run_WaitsForTheFirstQueryOfAConnectionWhenItStops(t *testing.T) {
	for range 5 {
		closed, err := askWhileStopping(t)
		if err == nil {
			return
		}
		if closed < time.Second {
			t.Fatalf("the query of a connection made before the stop is not answered: %v after %s", err, closed)
		} // else the machine was held up for all the time that the connection got
	}
	t.Fatal("the query of a connection made before the stop is never answered")
}

// askWhileStopping connects to a server, stops it, and asks then. The error is that
// of reading the answer, and came so long after the order to stop.
func askWhileStopping(t *testing.T) (after time.Duration, err error) {
	t.Helper()
	s, err := dnsserver.New(dnsserver.Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Workers: 1, Handler: handlerFunc(address), FirstByteTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tcp, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	eventually(t, "the connection is accepted", func() bool { return s.Stats().Conns == 1 })
	stopped := time.Now()
	cancel()
	<-time.After(200 * time.Millisecond) // well beyond what an idle connection gets
	query := "\x00\x13\x4d\x55\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"
	if err := tcp.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err = io.WriteString(tcp, query); err == nil {
		_, err = io.ReadFull(tcp, make([]byte, 2+12))
	}
	after = time.Since(stopped)
	if err := <-done; err != nil {
		t.Error(err)
	}
	return after, err
}
