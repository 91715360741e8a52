package wire_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
)

// askWith is the query a. A with EDNS options, parsed.
func askWith(t testing.TB, options ...dns.EDNS0) *wire.Query {
	t.Helper()
	m := new(dns.Msg).SetQuestion("a.", dns.TypeA).SetEdns0(1232, false)
	m.IsEdns0().Option = options
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q := new(wire.Query)
	if d := wire.ParseQuery(msg, q); d != wire.Proceed {
		t.Fatalf("disposition %d", d)
	}
	return q
}

func subnet(family uint16, bits uint8, address string) *dns.EDNS0_SUBNET {
	return &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: bits, Address: netip.MustParseAddr(address).AsSlice()}
}

func TestParseQuery_Options(t *testing.T) {
	q := askWith(t, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE},
		&dns.EDNS0_PADDING{Padding: make([]byte, 9)}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"},
		subnet(1, 24, "192.0.2.0"))
	if want := wire.AskedNSID | wire.AskedKeepalive | wire.AskedPadding | wire.AskedCookie | wire.AskedSubnet; q.Asked != want {
		t.Errorf("asked %b, want %b", q.Asked, want)
	}
	if !bytes.Equal(q.Cookie, []byte{1, 2, 3, 4, 5, 6, 7, 8}) || q.Subnet.Addr != netip.MustParseAddr("192.0.2.0") || q.Subnet.Bits != 24 {
		t.Errorf("cookie %x, subnet %+v", q.Cookie, q.Subnet)
	}
	if q := askWith(t); q.Asked != 0 {
		t.Errorf("without options: asked %b", q.Asked)
	}
	if q := askWith(t, subnet(2, 56, "2001:db8:0:100::")); q.Subnet.Addr != netip.MustParseAddr("2001:db8:0:100::") || q.Subnet.Bits != 56 {
		t.Errorf("subnet %+v", q.Subnet)
	}
	if q := askWith(t, subnet(1, 0, "0.0.0.0")); q.Subnet.Addr.IsValid() || q.Asked != wire.AskedSubnet {
		t.Errorf("subnet of no bits %+v", q.Subnet)
	}
}

// TestBuilder_Subnet gives back what the query had, with the answer's scope: RFC
// 7871 section 7.2.1.
func TestBuilder_Subnet(t *testing.T) {
	for _, o := range []*dns.EDNS0_SUBNET{
		subnet(1, 24, "192.0.2.0"), subnet(1, 0, "0.0.0.0"), subnet(1, 32, "192.0.2.1"), subnet(1, 21, "192.0.0.0"),
		subnet(2, 56, "2001:db8:0:100::"), subnet(2, 128, "2001:db8::1"), subnet(2, 0, "::"),
	} {
		q := askWith(t, o)
		var b wire.Builder
		b.Start(make([]byte, 512), q, 512)
		b.Subnet(&q.Subnet)
		b.EDE(wire.EDEOther, nil) // options may follow
		b.SetScope(o.SourceNetmask / 2)
		m := read(t, &b)
		got := m.IsEdns0().Option[0].(*dns.EDNS0_SUBNET)
		if got.Family != o.Family || got.SourceNetmask != o.SourceNetmask || got.SourceScope != o.SourceNetmask/2 || !got.Address.Equal(o.Address) {
			t.Errorf("got %+v, want %+v", got, o)
		}
	}
	q := askWith(t)
	var b wire.Builder
	b.Start(make([]byte, 512), q, 512)
	b.SetScope(24)
	if m := read(t, &b); len(m.IsEdns0().Option) != 0 {
		t.Error("a scope without a subnet")
	}
}

func TestBuilder_Pad(t *testing.T) {
	for _, row := range []struct {
		name                  string
		limit, records, block int
		want                  int
	}{
		{"RFC 8467 section 4.1: a short message becomes one block", 1232, 1, 468, 468},
		{"RFC 8467 section 4.1: a longer one the next", 1232, 40, 468, 936},
		{"RFC 8467 section 4.1: no further than the message may grow", 1232, 65, 468, 1232},
	} {
		t.Run(row.name, func(t *testing.T) {
			q := askWith(t)
			var b wire.Builder
			buf := bytes.Repeat([]byte{0xee}, row.limit)
			b.Start(buf, q, row.limit)
			b.Pad(row.block)
			for range row.records {
				if !b.A(wire.Answer, wire.RefQName, 5, [4]byte{192, 0, 2, 1}) {
					t.Fatal("a record does not fit")
				}
			}
			b.EDE(wire.EDEStale, nil)
			msg := b.Finish()
			m := new(dns.Msg)
			if err := m.Unpack(msg); err != nil || len(msg) != row.want || len(m.Answer) != row.records {
				t.Fatalf("%d octets with %d records, want %d with %d: %v", len(msg), len(m.Answer), row.want, row.records, err)
			}
			options := m.IsEdns0().Option
			p, ok := options[len(options)-1].(*dns.EDNS0_PADDING)
			if !ok || len(options) != 2 || len(bytes.Trim(p.Padding, "\x00")) != 0 {
				t.Errorf("options %v: want padding of zeros last (RFC 7830 section 3)", options)
			}
		})
	}
}

func TestBuilder_OptionsAllocateNothing(t *testing.T) {
	q := askWith(t, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, subnet(2, 56, "2001:db8:0:100::"))
	msg, buf, id := q.Msg, make([]byte, 512), []byte("ns1")
	var b wire.Builder
	if n := testing.AllocsPerRun(1000, func() {
		wire.ParseQuery(msg, q)
		b.Start(buf, q, 512)
		b.NSID(id)
		b.Cookie(q.Cookie, buf[:16])
		b.Subnet(&q.Subnet)
		b.Keepalive(100)
		b.Pad(468)
		b.Finish()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
