package authority_test

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/tsig"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/zonefile"
)

// primary is a server with zones to transfer: example.test by key1, open.test by all
// of this host, sub.open.test under it, and shut.open.test, which takes key1 or key2.
type primary struct {
	t       *testing.T
	handler *authority.Handler
	server  *dnstest.Everywhere
	serial  int
}

var transferSecret = strings.Repeat("s", 32)

func newPrimary(t *testing.T) *primary {
	t.Helper()
	here := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	h, err := authority.New(authority.Config{Transfer: []authority.Transfer{
		{Zone: "example.test.", Key: "key1."},
		{Zone: "open.test.", Allow: here},
		{Zone: "shut.open.test.", Key: "key1."},
		{Zone: "shut.open.test.", Allow: here, Key: "key2."},
		{Zone: "test.", Key: "key2."},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p := &primary{t: t, handler: h}
	p.serve(3)
	p.server = dnstest.StartEverywhere(t, h, nil, func(c *dnsserver.Config) { c.Slow = h })
	var list []tsig.Key
	for _, n := range []string{"key1.", "key2."} {
		list = append(list, tsig.Key{Name: name(t, n), Algorithm: "hmac-sha256", Secret: []byte(transferSecret)})
	}
	keys, err := tsig.New(list)
	if err != nil {
		t.Fatal(err)
	}
	p.server.Server.Server.SetKeys(keys)
	return p
}

// serve replaces the zones by ones with hosts h1 to hN, and the next serial number.
func (p *primary) serve(hosts int) {
	p.t.Helper()
	p.serial++
	var all []*zones.Zone
	for _, origin := range []string{"example.test.", "open.test.", "sub.open.test.", "shut.open.test.", "openx.test.", "z.open.test."} {
		text := fmt.Sprintf("$TTL 60\n@ SOA ns1 hostmaster %d 1 2 604800 4\n@ NS ns1\nns1 A 192.0.2.1\n", p.serial)
		for i := range hosts {
			text += fmt.Sprintf("h%d A 10.0.%d.%d\n", i+1, i/256, i%256)
		}
		z, _, err := zonefile.Parse(strings.NewReader(text), "zone", origin)
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, z)
	}
	tree, err := zones.NewTree(all)
	if err != nil {
		p.t.Fatal(err)
	}
	p.handler.SetTree(tree)
}

// signer signs with a key and secret; empty: not at all.
type signer struct{ key, secret string }

// transfer transfers a zone, since a serial number if that is not 0, and returns the
// records in short and how many messages they took.
func (p *primary) transfer(zone string, since int, s signer) ([]string, int, error) {
	p.t.Helper()
	m := new(dns.Msg)
	m.SetAxfr(zone)
	if since > 0 {
		m.SetIxfr(zone, uint32(since), ".", ".")
	}
	tr := &dns.Transfer{DialTimeout: long, ReadTimeout: long, WriteTimeout: long}
	if s.key != "" {
		tr.TsigSecret = map[string]string{s.key: base64.StdEncoding.EncodeToString([]byte(s.secret))}
		m.SetTsig(s.key, dns.HmacSHA256, 300, time.Now().Unix())
	}
	messages, err := tr.In(m, p.server.Addr.String())
	if err != nil {
		p.t.Fatal(err)
	}
	var got []string
	n := 0
	for e := range messages {
		if e.Error != nil {
			err = e.Error
			continue
		}
		n++
		for _, rr := range e.RR {
			short := rr.Header().Name
			if soa, ok := rr.(*dns.SOA); ok {
				short = fmt.Sprintf("SOA %d", soa.Serial)
			}
			got = append(got, short)
		}
	}
	return got, n, err
}

func TestHandler_ServeSlow_transfers(t *testing.T) {
	p := newPrimary(t)
	key1 := signer{"key1.", transferSecret}
	t.Run("AXFR is the zone from SOA to SOA", func(t *testing.T) {
		got, _, err := p.transfer("example.test.", 0, key1)
		want := []string{"SOA 1", "example.test.", "h1.example.test.", "h2.example.test.", "h3.example.test.", "ns1.example.test.", "SOA 1"}
		slices.Sort(got[1 : len(got)-1])
		slices.Sort(want[1 : len(want)-1])
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v\nwant %q", got, err, want)
		}
	})
	t.Run("IXFR is what has changed since a version that was transferred", func(t *testing.T) {
		p.serve(4)
		p.serve(2)
		got, _, err := p.transfer("example.test.", 1, key1)
		if want := []string{"SOA 3", "SOA 1", "h3.example.test.", "SOA 3", "SOA 3"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v\nwant %q", got, err, want)
		}
		if got, _, err = p.transfer("example.test.", 3, key1); err != nil || !slices.Equal(got, []string{"SOA 3"}) {
			t.Errorf("up to date: %q, %v, want the SOA alone (RFC 1995 section 2)", got, err)
		}
		got, _, err = p.transfer("example.test.", 2, key1)
		if err != nil || len(got) != 6 || got[0] != "SOA 3" || got[5] != "SOA 3" || got[1] == "SOA 2" {
			t.Errorf("since a version that nobody has had: %q, %v, want the whole zone", got, err)
		}
	})
	t.Run("over UDP there is the SOA alone", func(t *testing.T) {
		m := new(dns.Msg)
		m.SetIxfr("open.test.", 1, ".", ".")
		r, _, err := (&dns.Client{Timeout: long}).Exchange(m, p.server.Addr.String())
		if err != nil || len(r.Answer) != 1 || r.Answer[0].(*dns.SOA).Serial != 3 {
			t.Errorf("IXFR: %v, %v", r, err)
		}
		if r := p.server.Query(t, "open.test. AXFR"); r.Rcode != dns.RcodeRefused || len(r.Answer) != 0 {
			t.Errorf("AXFR: %v", r)
		}
	})
	t.Run("a large zone takes many messages, each signed", func(t *testing.T) {
		p.serve(5000)
		got, n, err := p.transfer("example.test.", 0, key1)
		if err != nil || len(got) != 5000+4 || n < 4 {
			t.Errorf("%d records in %d messages, %v", len(got), n, err)
		}
	})
}

// In CVE-2026-33489 the entry with the longest zone was looked for by the order of
// letters, so that another's decided. Here labels count, a child's entry closes what its
// parent's opens, and opens what that closes.
func TestHandler_ServeDNS_refuses_transfers(t *testing.T) {
	p := newPrimary(t)
	for _, tt := range []struct {
		what, zone string
		by         signer
		ok         bool
	}{
		{"with the key", "example.test.", signer{"key1.", transferSecret}, true},
		{"without a key", "example.test.", signer{}, false},
		{"with another key of ours", "example.test.", signer{"key2.", transferSecret}, false},
		{"with a key that is not known", "example.test.", signer{"key3.", transferSecret}, false},
		{"with another secret", "example.test.", signer{"key1.", strings.Repeat("x", 32)}, false},
		{"by address", "open.test.", signer{}, true},
		{"by address, signed too", "open.test.", signer{"key2.", transferSecret}, true},
		{"a zone below one that may be", "sub.open.test.", signer{}, true},
		{"a zone below one that may be, later in the alphabet than what is closed", "z.open.test.", signer{}, true},
		{"a zone below one that may be, and closed itself", "shut.open.test.", signer{}, false},
		{"the same with its key", "shut.open.test.", signer{"key1.", transferSecret}, true},
		{"the same with its other key", "shut.open.test.", signer{"key2.", transferSecret}, true},
		{"a child's key is not the parent's", "example.test.", signer{"key2.", transferSecret}, false},
		{"a zone whose name only ends alike", "openx.test.", signer{}, false},
		{"the same with the key of the top", "openx.test.", signer{"key2.", transferSecret}, true},
		{"a name that is no zone", "www.open.test.", signer{}, false},
		{"a zone that is not here", "other.test.", signer{}, false},
	} {
		got, _, err := p.transfer(tt.zone, 0, tt.by)
		if (err == nil && len(got) > 2) != tt.ok || !tt.ok && len(got) > 0 {
			t.Errorf("%s: %d records, %v; want success %t", tt.what, len(got), err, tt.ok)
		}
	}
}

// The signature is checked in one place, whatever is asked and over what: CVE-2026-33190
// and CVE-2026-35579 were servers that did so over some transports only.
func TestServer_checks_signatures(t *testing.T) {
	p := newPrimary(t)
	for _, transport := range dnstest.Transports() {
		c := p.server.Carrier(transport)
		for _, tt := range []struct {
			what  string
			by    signer
			at    time.Duration
			rcode int
			tsig  uint16
		}{
			{"right", signer{"key1.", transferSecret}, 0, dns.RcodeSuccess, 0},
			{"another secret", signer{"key1.", strings.Repeat("x", 32)}, 0, dns.RcodeNotAuth, dns.RcodeBadSig},
			{"a key that is not known", signer{"key3.", transferSecret}, 0, dns.RcodeNotAuth, dns.RcodeBadKey},
			{"an hour ago", signer{"key1.", transferSecret}, -time.Hour, dns.RcodeNotAuth, dns.RcodeBadTime},
			{"in a year", signer{"key1.", transferSecret}, 365 * 24 * time.Hour, dns.RcodeNotAuth, dns.RcodeBadTime},
			{"four minutes ago", signer{"key1.", transferSecret}, -4 * time.Minute, dns.RcodeSuccess, 0},
		} {
			m := new(dns.Msg)
			m.SetQuestion("h1.open.test.", dns.TypeA)
			m.SetEdns0(1232, false)
			r, err := exchangeSigned(t, c, m, tt.by, tt.at)
			sig := r.IsTsig()
			if sig == nil || r.Rcode != tt.rcode || sig.Error != tt.tsig || tt.rcode != 0 && len(r.Answer) > 0 {
				t.Errorf("%s, %s: %s with TSIG %v, want %s and error %d", transport, tt.what, dns.RcodeToString[r.Rcode], sig, dns.RcodeToString[tt.rcode], tt.tsig)
				continue
			}
			switch {
			case tt.tsig == 0 && err != nil: // the client has verified what it got
				t.Errorf("%s, %s: the answer's signature: %v", transport, tt.what, err)
			case tt.tsig == dns.RcodeBadTime && (sig.OtherLen != 6 || sig.MACSize == 0):
				t.Errorf("%s, %s: BADTIME is signed, and tells our time (RFC 8945 section 5.2.3): %v", transport, tt.what, sig)
			case tt.tsig != 0 && tt.tsig != dns.RcodeBadTime && sig.MACSize != 0:
				t.Errorf("%s, %s: signed, though the client does not know the key", transport, tt.what)
			}
		}
	}
}

// exchangeSigned signs a question as of now and so much, sends it with id 0, and returns
// the answer with what verifying it says.
func exchangeSigned(t *testing.T, c *dnstest.Carrier, m *dns.Msg, by signer, at time.Duration) (*dns.Msg, error) {
	t.Helper()
	secret := base64.StdEncoding.EncodeToString([]byte(by.secret))
	m.Id = 0 // as QUIC wants it
	m.SetTsig(by.key, dns.HmacSHA256, 300, time.Now().Add(at).Unix())
	packed, mac, err := dns.TsigGenerate(m, secret, "", false)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := c.Exchange(t.Context(), packed)
	if err != nil || reply == nil {
		t.Fatalf("%v: %x, %v", m.Question, reply, err)
	}
	return dnstest.Unpack(t, reply), dns.TsigVerify(reply, secret, mac, false)
}

// A transfer with a bad signature, or none, is refused over every transport, as not in
// CVE-2026-33190 and CVE-2026-35579.
func TestServer_refuses_unsigned_transfers(t *testing.T) {
	p := newPrimary(t)
	for _, transport := range dnstest.Transports() {
		c := p.server.Carrier(transport)
		m := new(dns.Msg)
		m.SetAxfr("example.test.")
		m.Id = 0
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply, err := c.Exchange(t.Context(), packed)
		if err != nil || reply == nil {
			t.Fatalf("%s: %x, %v", transport, reply, err)
		}
		if r := dnstest.Unpack(t, reply); r.Rcode != dns.RcodeRefused || len(r.Answer) > 0 {
			t.Errorf("%s, without a signature: %v", transport, r)
		}
		for _, by := range []signer{{"key1.", strings.Repeat("x", 32)}, {"key3.", transferSecret}} {
			if r, _ := exchangeSigned(t, c, m.Copy(), by, 0); r.Rcode != dns.RcodeNotAuth || len(r.Answer) > 0 {
				t.Errorf("%s, by %s with a bad signature: %v", transport, by.key, r)
			}
		}
	}
}

// A client that goes away amid its transfers, while the zones change, leaves no goroutine
// behind and holds no other up: CoreDNS 1.12.4 mended such a leak, 1.14.3 a race.
func TestServer_forgets_transfers_cut_short(t *testing.T) {
	p := newPrimary(t)
	p.serve(3000)
	before := runtime.NumGoroutine()
	var clients sync.WaitGroup
	for range 24 { // more than may run at once
		clients.Go(func() {
			c, err := net.Dial("tcp", p.server.Addr.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			m := new(dns.Msg)
			m.SetAxfr("open.test.")
			packed, err := m.Pack()
			if err != nil {
				t.Error(err)
				return
			}
			for range 3 {
				_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...))
				if err != nil {
					t.Error(err)
					return
				}
			}
			if _, err := dnstest.ReadMsg(c); err != nil { // one of many
				t.Error(err)
			}
		})
	}
	for range 3 {
		p.serve(3000)
	}
	clients.Wait()
	began := time.Now()
	for runtime.NumGoroutine() > before {
		if time.Since(began) > long {
			t.Fatalf("%d goroutines, %d before the transfers", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
	if got, _, err := p.transfer("open.test.", 0, signer{}); err != nil || len(got) != 3004 {
		t.Errorf("then another gets %d records, %v", len(got), err)
	}
}

func TestServer_refuses_a_bent_signature(t *testing.T) {
	p := newPrimary(t)
	m := new(dns.Msg)
	m.SetQuestion("h1.open.test.", dns.TypeA)
	m.SetTsig("key1.", dns.HmacSHA256, 300, time.Now().Unix())
	packed, _, err := dns.TsigGenerate(m, base64.StdEncoding.EncodeToString([]byte(transferSecret)), "", false)
	if err != nil {
		t.Fatal(err)
	}
	if r := dnstest.Unpack(t, p.server.Exchange(t, "udp", packed)); r.Rcode != dns.RcodeSuccess {
		t.Fatalf("as it was made: %v", r)
	}
	for i := range packed {
		bent := slices.Clone(packed)
		bent[i] ^= 1
		if i < 2 {
			continue // the id, of which the signature has a copy (RFC 8945 section 4.2)
		}
		if bent[2]&0x80 != 0 {
			continue // a response, which nobody answers
		}
		r := dnstest.Unpack(t, p.server.Exchange(t, "tcp", bent))
		if r.Rcode == dns.RcodeSuccess && r.IsTsig() != nil { // without, it was no signature any more
			t.Errorf("with octet %d changed, it is answered as if it were signed", i)
		}
	}
}
