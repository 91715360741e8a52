package authority_test

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
	"github.com/musterdns/muster/dnsserver/wire"
)

// resolver is an upstream that answers by a function, over UDP and TCP on one
// port, and notes what it was asked.
type resolver struct {
	addr netip.AddrPort
	mu   sync.Mutex
	// What was asked, in order: guarded by mu.
	asked []*dns.Msg
	froms []string
}

// newResolver starts one. reply is called for each question; it writes what it
// likes.
func newResolver(t *testing.T, reply func(w dns.ResponseWriter, q *dns.Msg)) *resolver {
	t.Helper()
	pc, ln := onePort(t)
	r := &resolver{addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r.mu.Lock()
		r.asked = append(r.asked, q.Copy())
		r.froms = append(r.froms, w.RemoteAddr().String())
		r.mu.Unlock()
		reply(w, q)
	})
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // runs after the shutdowns
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: ln, Handler: handler}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() {
			if err := srv.ActivateAndServe(); err != nil {
				t.Errorf("resolver: %v", err)
			}
		})
		<-started
		t.Cleanup(func() {
			if err := srv.Shutdown(); err != nil {
				t.Errorf("resolver: %v", err)
			}
		})
	}
	return r
}

// onePort binds UDP and TCP to the same free port of loopback.
func onePort(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 { // a port that is free for one may be taken for the other
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, ln
		}
		pc.Close()
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

func (r *resolver) questions() []*dns.Msg {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

// answering replies with an A record, and flags that a forwarder must not pass on.
func answering(addr string) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Authoritative, m.AuthenticatedData = true, true
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 77},
			A:   net.ParseIP(addr),
		}}
		_ = w.WriteMsg(m) // a client that has gone shows in its own test
	}
}

func failing(code int) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetRcode(q, code)
		_ = w.WriteMsg(m)
	}
}

func silent(dns.ResponseWriter, *dns.Msg) {}

// writer is a dnsserver.Writer of functions.
type writer struct {
	write func(msg []byte) error
	limit int
}

func (w writer) WriteMsg(msg []byte) error { return w.write(msg) }
func (w writer) Limit() int                { return w.limit }

// forwarding is a handler that forwards to the resolvers.
func forwarding(t *testing.T, timeout time.Duration, to ...*resolver) *authority.Handler {
	t.Helper()
	c := authority.Config{Forward: authority.Forward{Timeout: timeout}}
	for _, r := range to {
		c.Forward.Upstreams = append(c.Forward.Upstreams, r.addr)
	}
	h, err := authority.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// forward puts a question to h that it must defer, and returns what ServeSlow
// then writes.
func forward(t *testing.T, h *authority.Handler, q *dns.Msg, tr dnsserver.Transport) *dns.Msg {
	t.Helper()
	packed, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var parsed wire.Query
	if d := wire.ParseQuery(packed, &parsed); d != wire.Proceed {
		t.Fatalf("disposition %d", d)
	}
	from := client()
	from.Transport = tr
	var b wire.Builder
	b.Start(make([]byte, wire.MaxMessage), &parsed, limit(&parsed, tr))
	if v := h.ServeDNS(&b, &parsed, &from); v != dnsserver.Defer {
		t.Fatalf("verdict %d, want Defer", v)
	}
	var got []byte
	w := writer{limit: limit(&parsed, tr), write: func(msg []byte) error {
		if got != nil {
			t.Error("written twice")
		}
		got = slices.Clone(msg)
		return nil
	}}
	if err := h.ServeSlow(t.Context(), packed, from, w); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(got); err != nil {
		t.Fatalf("unpacking %x: %v", got, err)
	}
	if m.Id != q.Id || len(m.Question) != 1 || m.Question[0] != q.Question[0] {
		t.Errorf("id %d question %v, asked with %d %v", m.Id, m.Question, q.Id, q.Question)
	}
	return m
}

func ask(name string, edns bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	if edns {
		m.SetEdns0(1232, true)
	}
	return m
}

const long = time.Minute // a timeout that the test does not wait for

func TestHandler_ServeSlow(t *testing.T) {
	const qname = "WWW.elsewhere.test."
	t.Run("an answer is passed on with our flags and the client's spelling", func(t *testing.T) {
		r := newResolver(t, answering("192.0.2.77"))
		m := forward(t, forwarding(t, long, r), ask(qname, true), dnsserver.UDP)
		if got, want := status(m), "NOERROR qr rd ra"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := texts(m.Answer); !slices.Equal(got, []string{qname + " 77 IN A 192.0.2.77"}) {
			t.Errorf("answer %q", got)
		}
		up := r.questions()[0]
		if opt := up.IsEdns0(); !up.RecursionDesired || opt == nil || !opt.Do() || opt.UDPSize() != 1232 || len(opt.Option) != 0 {
			t.Errorf("asked upstream with %v", up)
		}
	})
	t.Run("without EDNS there is none upstream", func(t *testing.T) {
		r := newResolver(t, answering("192.0.2.77"))
		m := forward(t, forwarding(t, long, r), ask(qname, false), dnsserver.UDP)
		if m.IsEdns0() != nil || r.questions()[0].IsEdns0() != nil {
			t.Errorf("OPT record in %v or %v", m, r.questions()[0])
		}
	})
	t.Run("id and port are new for each question (RFC 5452)", func(t *testing.T) {
		r := newResolver(t, answering("192.0.2.77"))
		h := forwarding(t, long, r)
		const n = 16
		for range n {
			forward(t, h, ask(qname, false), dnsserver.UDP)
		}
		ids, ports := map[uint16]bool{}, map[string]bool{}
		for i, q := range r.questions() {
			ids[q.Id], ports[r.froms[i]] = true, true
		}
		if len(ids) < n-2 || len(ports) < n-2 { // two equal ones among 16 are one chance in 500
			t.Errorf("%d ids and %d ports in %d questions", len(ids), len(ports), n)
		}
	})
	t.Run("what answers another question is passed over", func(t *testing.T) {
		r := newResolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
			wrongID, wrongName, noResponse := q.Copy(), q.Copy(), q.Copy()
			wrongID.Id++
			wrongID.Response = true
			wrongName.Question[0].Name = "www.attacker.test."
			wrongName.Response = true
			for _, m := range []*dns.Msg{wrongID, wrongName, noResponse} {
				_ = w.WriteMsg(m)
			}
			answering("192.0.2.78")(w, q)
		})
		m := forward(t, forwarding(t, long, r), ask(qname, false), dnsserver.UDP)
		if got := texts(m.Answer); !slices.Equal(got, []string{qname + " 77 IN A 192.0.2.78"}) {
			t.Errorf("answer %q", got)
		}
	})
	t.Run("a truncated answer is fetched whole for who can take it", func(t *testing.T) {
		r := newResolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
			if w.RemoteAddr().Network() == "tcp" {
				answering("192.0.2.79")(w, q)
				return
			}
			m := new(dns.Msg)
			m.SetReply(q)
			m.Truncated = true
			_ = w.WriteMsg(m)
		})
		h := forwarding(t, long, r)
		if got, want := status(forward(t, h, ask(qname, true), dnsserver.UDP)), "NOERROR qr tc rd ra"; got != want {
			t.Errorf("over UDP: got %q, want %q", got, want)
		}
		m := forward(t, h, ask(qname, true), dnsserver.TCP)
		if got, want := status(m), "NOERROR qr rd ra"; got != want || len(m.Answer) != 1 {
			t.Errorf("over TCP: got %q with %d records, want %q with 1", got, len(m.Answer), want)
		}
	})
	t.Run("an answer longer than was offered is cut", func(t *testing.T) {
		r := newResolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg)
			m.SetReply(q)
			for range 50 {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: qname, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 1)})
			}
			_ = w.WriteMsg(m)
		})
		m := forward(t, forwarding(t, long, r), ask(qname, false), dnsserver.UDP)
		if got, want := status(m), "NOERROR qr tc rd ra"; got != want || len(m.Answer) != 0 {
			t.Errorf("got %q with %d records, want %q with none", got, len(m.Answer), want)
		}
	})
}

func TestHandler_ServeSlow_failures(t *testing.T) {
	const qname = "www.elsewhere.test."
	t.Run("the next resolver is asked when one is silent, and first from then on", func(t *testing.T) {
		first, second := newResolver(t, silent), newResolver(t, answering("192.0.2.2"))
		h := forwarding(t, 2*time.Second, first, second) // which the second must keep, on a busy machine
		for range 3 {
			if got, want := status(forward(t, h, ask(qname, false), dnsserver.UDP)), "NOERROR qr rd ra"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if n := len(first.questions()); n != 2 {
			t.Errorf("the silent one was asked %d times, want 2: once, and once again", n)
		}
	})
	t.Run("a failure is passed on only when nobody does better", func(t *testing.T) {
		ill, well := newResolver(t, failing(dns.RcodeServerFailure)), newResolver(t, answering("192.0.2.2"))
		if got, want := status(forward(t, forwarding(t, long, ill, well), ask(qname, false), dnsserver.UDP)), "NOERROR qr rd ra"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got, want := status(forward(t, forwarding(t, long, ill), ask(qname, false), dnsserver.UDP)), "SERVFAIL qr rd ra"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("NXDOMAIN is an answer", func(t *testing.T) {
		none, some := newResolver(t, failing(dns.RcodeNameError)), newResolver(t, answering("192.0.2.2"))
		if got, want := status(forward(t, forwarding(t, long, none, some), ask(qname, false), dnsserver.UDP)), "NXDOMAIN qr rd ra"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("nobody answers: SERVFAIL and EDE 22", func(t *testing.T) {
		h := forwarding(t, 50*time.Millisecond, newResolver(t, silent))
		m := forward(t, h, ask(qname, true), dnsserver.UDP)
		if got, want := status(m), "SERVFAIL qr rd ra"; got != want || !slices.Equal(edes(m), []string{"22"}) {
			t.Errorf("got %q %q, want %q and 22", got, edes(m), want)
		}
		want := []authority.Count{{Transport: dnsserver.UDP, Outcome: authority.ForwardingFailed, Queries: 1}}
		if got := slices.Collect(h.Counts()); !slices.Equal(got, want) {
			t.Errorf("counted %v, want %v", got, want)
		}
	})
	t.Run("nobody listens: SERVFAIL and EDE 23", func(t *testing.T) {
		// A socket that is connected elsewhere: the port stays taken, and is refused.
		held, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 9})
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		gone := &resolver{addr: netip.MustParseAddrPort(held.LocalAddr().String())}
		m := forward(t, forwarding(t, long, gone), ask(qname, true), dnsserver.UDP)
		if got, want := status(m), "SERVFAIL qr rd ra"; got != want || !slices.Equal(edes(m), []string{"23"}) {
			t.Errorf("got %q %q, want %q and 23", got, edes(m), want)
		}
	})
}

func TestHandler_ServeDNS_forwarding(t *testing.T) {
	h := benchHandler(t, 0)
	up := netip.MustParseAddrPort("127.0.0.1:53")
	if err := h.SetConfig(authority.Config{
		Access:  []authority.Rule{{Zone: "denied.test.", Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}},
		Forward: authority.Forward{Upstreams: []netip.AddrPort{up}},
	}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, qname, from string
		rd                bool
		want              string
	}{
		{"a name of ours is answered, with RA", "www.bench.test.", "127.0.0.1", true, "NOERROR qr aa rd ra"},
		{"a name of ours that is not is not looked for elsewhere", "nope.bench.test.", "10.0.0.1", true, "NXDOMAIN qr aa rd ra"},
		{"without RD nothing is forwarded", "www.elsewhere.test.", "127.0.0.1", false, "REFUSED qr ra"},
		{"nor for strangers", "www.elsewhere.test.", "203.0.113.1", true, "REFUSED qr rd"},
		{"nor what an access rule forbids", "www.denied.test.", "127.0.0.1", true, "REFUSED qr rd ra"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := ask(tt.qname, false)
			q.RecursionDesired = tt.rd
			packed, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			from := client()
			from.Addr = netip.AddrPortFrom(netip.MustParseAddr(tt.from), 5353)
			if got := status(exchange(t, h, packed, from)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
