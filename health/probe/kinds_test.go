package probe_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
	"github.com/musterdns/muster/registry/registrytest"
)

func TestSet_TCP(t *testing.T) {
	s := newSet(t, probe.Config{AllowTargets: loopback})
	t.Run("a listener passes and is sent nothing", func(t *testing.T) {
		read := make(chan int, 1)
		addr := serve(t, func(_ context.Context, c net.Conn) {
			n, _ := c.Read(make([]byte, 1))
			read <- n
		})
		probeOnce(t, s, health.Target{Type: health.TypeTCP, Addr: addr}, expect{ok: true, output: "TCP ADDR: connected", load: -1})
		if n := <-read; n != 0 {
			t.Errorf("%d octets sent", n)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		probeOnce(t, s, health.Target{Type: health.TypeTCP, Addr: registrytest.Nobody(t)}, expect{refused: true, output: "TCP ADDR: connection refused", load: -1})
	})
	t.Run("a backlog that is full", func(t *testing.T) {
		probeOnce(t, s, health.Target{Type: health.TypeTCP, Addr: full(t)}, expect{output: "TCP ADDR: no connection within 300ms", load: -1, slow: true})
	})
}

func TestSet_GRPC(t *testing.T) {
	s := newSet(t, probe.Config{AllowTargets: loopback})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	states := grpchealth.NewServer()
	states.SetServingStatus("orders", healthpb.HealthCheckResponse_SERVING)
	states.SetServingStatus("billing", healthpb.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, states)
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	other := grpc.NewServer() // knows no health checking
	ol, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { served <- other.Serve(ol) }()
	defer func() {
		other.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		name    string
		addr    netip.AddrPort
		service string
		want    expect
	}{
		{"the server as a whole", addrOf(l.Addr()), "", expect{ok: true, output: `gRPC ADDR Check(""): SERVING`, load: -1}},
		{"a service", addrOf(l.Addr()), "orders", expect{ok: true, output: `Check("orders"): SERVING`, load: -1}},
		{"a service that does not serve", addrOf(l.Addr()), "billing", expect{output: `Check("billing"): NOT_SERVING`, load: -1}},
		{"an unknown service", addrOf(l.Addr()), "nope", expect{output: "does not know the service", load: -1}},
		{"no health checking", addrOf(ol.Addr()), "", expect{output: "Unimplemented", load: -1}},
		{"nobody listens", registrytest.Nobody(t), "", expect{refused: true, output: ": connection refused", load: -1}},
		{"not gRPC", says(t, "HTTP/1.1 200 OK\r\n\r\n"), "", expect{output: "Unavailable", load: -1}},
		{"hangs", serve(t, silent), "", expect{output: "no answer within 300ms", load: -1, slow: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			probeOnce(t, s, health.Target{Type: health.TypeGRPC, Addr: c.addr, Service: c.service}, c.want)
		})
	}
}

// dnsServer answers each query with what answer makes of it.
func dnsServer(t *testing.T, answer func(query *dns.Msg, write func([]byte))) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			query := new(dns.Msg)
			if err := query.Unpack(buf[:n]); err != nil {
				t.Errorf("the query cannot be read: %v", err)
				continue
			}
			answer(query, func(b []byte) { _, _ = c.WriteTo(b, from) })
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return addrOf(c.LocalAddr())
}

func TestSet_DNS(t *testing.T) {
	s := newSet(t, probe.Config{AllowTargets: loopback})
	reply := func(rcode int, edit ...func(*dns.Msg)) func(*dns.Msg, func([]byte)) {
		return func(q *dns.Msg, write func([]byte)) {
			m := new(dns.Msg).SetRcode(q, rcode)
			for _, e := range edit {
				e(m)
			}
			b, err := m.Pack()
			if err != nil {
				t.Error(err)
			}
			write(b)
		}
	}
	timesOut := expect{output: ": no response within 300ms", load: -1, slow: true}
	for _, c := range []struct {
		name   string
		answer func(*dns.Msg, func([]byte))
		want   expect
	}{
		{"NOERROR passes", reply(dns.RcodeSuccess), expect{ok: true, output: "DNS ADDR web.test SRV: NOERROR", load: -1}},
		{"NOERROR in other case passes", reply(dns.RcodeSuccess, func(m *dns.Msg) { m.Question[0].Name = "WEB.test." }), expect{ok: true, load: -1}},
		{"truncated passes", reply(dns.RcodeSuccess, func(m *dns.Msg) { m.Truncated = true }), expect{ok: true, load: -1}},
		{"SERVFAIL fails", reply(dns.RcodeServerFailure), expect{output: ": SERVFAIL", load: -1}},
		{"NXDOMAIN fails", reply(dns.RcodeNameError), expect{output: ": NXDOMAIN", load: -1}},
		{"REFUSED fails", reply(dns.RcodeRefused), expect{output: ": REFUSED", load: -1}},
		{"FORMERR without a question fails", reply(dns.RcodeFormatError, func(m *dns.Msg) { m.Question = nil }), expect{output: ": FORMERR", load: -1}},
		{"a code without a name", reply(9), expect{output: ": RCODE9", load: -1}},
		{"no response", func(*dns.Msg, func([]byte)) {}, timesOut},
		{"another id is no response", reply(dns.RcodeSuccess, func(m *dns.Msg) { m.Id++ }), timesOut},
		{"a query is no response", reply(dns.RcodeSuccess, func(m *dns.Msg) { m.Response = false }), timesOut},
		{"another opcode is no response", reply(dns.RcodeSuccess, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), timesOut},
		{"another name is no response", reply(dns.RcodeSuccess, func(m *dns.Msg) { m.Question[0].Name = "wab.test." }), timesOut},
		{"another type is no response", reply(dns.RcodeSuccess, func(m *dns.Msg) { m.Question[0].Qtype = 1 }), timesOut},
		{"NOERROR without a question is no response", reply(dns.RcodeSuccess, func(m *dns.Msg) { m.Question = nil }), timesOut},
		{"a short datagram is no response", func(q *dns.Msg, write func([]byte)) { write([]byte{byte(q.Id >> 8), byte(q.Id), 0x80}) }, timesOut},
		{"what answers something else is passed over", func(q *dns.Msg, write func([]byte)) {
			reply(dns.RcodeServerFailure, func(m *dns.Msg) { m.Id++ })(q, write)
			reply(dns.RcodeSuccess)(q, write)
		}, expect{ok: true, load: -1}},
		{"a flood of other answers ends the check", func(q *dns.Msg, write func([]byte)) {
			for range 40 {
				reply(dns.RcodeSuccess, func(m *dns.Msg) { m.Id++ })(q, write)
			}
		}, expect{output: "datagrams that answer something else", load: -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := dnsServer(t, func(q *dns.Msg, write func([]byte)) {
				want := dns.Question{Name: "web.test.", Qtype: dns.TypeSRV, Qclass: dns.ClassINET}
				if len(q.Question) != 1 || q.Question[0] != want || q.Opcode != dns.OpcodeQuery || q.Response {
					t.Errorf("the query is %v", q)
				}
				c.answer(q, write)
			})
			probeOnce(t, s, health.Target{Type: health.TypeDNS, Addr: addr, Name: "web.test", Record: "SRV"}, c.want)
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		// A socket that is connected hears nobody else: its port is taken, and refuses.
		c, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}}).DialContext(t.Context(), "udp", "127.0.0.1:9")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		addr := addrOf(c.LocalAddr())
		probeOnce(t, s, health.Target{Type: health.TypeDNS, Addr: addr, Name: "web.test"}, expect{refused: true, output: "DNS ADDR web.test A: connection refused", load: -1})
	})
	t.Run("each record type asks for its number", func(t *testing.T) {
		for name, number := range map[string]uint16{
			"A": dns.TypeA, "AAAA": dns.TypeAAAA, "NS": dns.TypeNS, "SOA": dns.TypeSOA, "MX": dns.TypeMX, "TXT": dns.TypeTXT,
			"SRV": dns.TypeSRV, "PTR": dns.TypePTR, "CNAME": dns.TypeCNAME, "TYPE65": dns.TypeHTTPS,
		} {
			var asked atomic.Uint32
			addr := dnsServer(t, func(q *dns.Msg, write func([]byte)) {
				asked.Store(uint32(q.Question[0].Qtype))
				reply(dns.RcodeSuccess)(q, write)
			})
			probeOnce(t, s, health.Target{Type: health.TypeDNS, Addr: addr, Name: ".", Record: name}, expect{ok: true, load: -1})
			if asked.Load() != uint32(number) {
				t.Errorf("%s asks for %d", name, asked.Load())
			}
		}
	})
}

func TestValidate(t *testing.T) {
	addr := netip.MustParseAddrPort("10.0.0.1:80")
	for _, c := range []struct {
		target health.Target
		want   string // in the error; empty: valid
	}{
		{health.Target{Type: health.TypeTCP, Addr: addr}, ""},
		{health.Target{Type: health.TypeHTTP, Addr: addr, Path: "/a?b=c", Host: "web.test:80", Method: "HEAD", Status: "200-299,404"}, ""},
		{health.Target{Type: health.TypeDNS, Addr: addr, Name: "a.test"}, ""},
		{health.Target{Type: health.TypeNone, Addr: addr}, "none check"},
		{health.Target{Type: health.TypeTTL, Addr: addr}, "ttl check"},
		{health.Target{Type: health.TypeTCP}, "give the instance a port"},
		{health.Target{Type: health.TypeTCP, Addr: netip.AddrPortFrom(addr.Addr(), 0)}, "give the instance a port"},
		{health.Target{Type: health.TypeHTTP, Addr: addr, Method: "POST"}, `method "POST"`},
		{health.Target{Type: health.TypeHTTP, Addr: addr, Path: "healthz"}, `path "healthz"`},
		{health.Target{Type: health.TypeHTTP, Addr: addr, Path: "/a b"}, "%20"},
		{health.Target{Type: health.TypeHTTP, Addr: addr, Path: "/ HTTP/1.1\r\nX: y"}, "path"},
		{health.Target{Type: health.TypeHTTPS, Addr: addr, Host: "a\r\nX: y"}, "host"},
		{health.Target{Type: health.TypeHTTPS, Addr: addr, Host: "h\u00f6st"}, "host"},
		{health.Target{Type: health.TypeHTTP, Addr: addr, Status: "ok"}, `"ok"`},
		{health.Target{Type: health.TypeHTTP, Addr: addr, Status: "200,"}, `""`},
		{health.Target{Type: health.TypeHTTP, Addr: addr, Status: "299-200"}, `"299-200"`},
		{health.Target{Type: health.TypeHTTP, Addr: addr, Status: "100-200"}, `"100-200"`},
		{health.Target{Type: health.TypeHTTP, Addr: addr, Status: "200-600"}, `"200-600"`},
		{health.Target{Type: health.TypeGRPC, Addr: addr, Service: strings.Repeat("x", 256)}, "255 octets"},
		{health.Target{Type: health.TypeGRPC, Addr: addr, Service: "\xff"}, "UTF-8"},
		{health.Target{Type: health.TypeDNS, Addr: addr}, "name"},
		{health.Target{Type: health.TypeDNS, Addr: addr, Name: strings.Repeat("a", 64) + ".test"}, "name"},
		{health.Target{Type: health.TypeDNS, Addr: addr, Name: "a.test", Record: "AXFR"}, `record "AXFR"`},
		{health.Target{Type: health.TypeDNS, Addr: addr, Name: "a.test", Record: "TYPE65536"}, `record "TYPE65536"`},
	} {
		err := probe.Validate(c.target)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: error %v, want %q", c.target, err, c.want)
		}
		if err == nil {
			continue
		}
		r := newSet(t, probe.Config{AllowTargets: loopback}).Probe(t.Context(), c.target)
		if r.OK || r.Load != -1 {
			t.Errorf("%+v: an invalid target was probed: %+v", c.target, r)
		}
		wantLine(t, r.Output)
	}
}

// full is a listener that accepts no connection: its backlog is full.
func full(t *testing.T) netip.AddrPort {
	t.Helper()
	l := listenBacklogZero(t)
	for range 16 {
		d := net.Dialer{Timeout: 500 * time.Millisecond}
		c, err := d.DialContext(t.Context(), "tcp", l.String())
		if err != nil {
			return l
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the backlog is never full")
	return l
}
