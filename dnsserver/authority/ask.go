package authority

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/presentation"
	"github.com/musterdns/muster/dnsserver/wire"
)

// Reply is the answer to a question as a person reads it.
type Reply struct {
	RCode   string   // "NOERROR"
	Answers []string // the answer section, as zone file lines
	Extra   string   // extended DNS errors with their texts; empty: none
}

// askSize is the UDP size that Ask offers (RFC 6891 section 6.2.5): what a
// resolver offers nowadays.
const askSize = 1232

// Ask answers a question from client by the very code that answers DNS over
// UDP, for people who want to know what it says. Nothing is forwarded: what
// would be is answered REFUSED. It is for the admin API, not the query path.
func (h *Handler) Ask(name, typ string, client netip.Addr) (Reply, error) {
	qtype, ok := wire.ParseType(typ)
	if !ok {
		return Reply{}, fmt.Errorf("unknown type %q", typ)
	}
	if _, ok := dns.IsDomainName(name); !ok {
		return Reply{}, fmt.Errorf("%q is no domain name", name)
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), uint16(qtype)).SetEdns0(askSize, false)
	m.RecursionDesired = false // so that nothing is forwarded (RFC 1034 section 4.3.1)
	packed, err := m.Pack()
	if err != nil {
		return Reply{}, fmt.Errorf("asking %s %s: %w", name, typ, err)
	}
	var q wire.Query
	if d := wire.ParseQuery(packed, &q); d != wire.Proceed {
		return Reply{}, fmt.Errorf("asking %s %s: the question is refused (disposition %d)", name, typ, d)
	}
	var b wire.Builder
	b.Start(make([]byte, askSize), &q, askSize)
	from := dnsserver.Client{
		Addr: netip.AddrPortFrom(client, 0), Transport: dnsserver.UDP, Now: time.Now().UnixNano(), Rand: rand.Uint64(),
		Known: true, // nothing is sent to it
	}
	if v := h.ServeDNS(&b, &q, &from); v != dnsserver.Send {
		return Reply{RCode: dns.RcodeToString[dns.RcodeRefused]}, nil
	}
	resp, err := presentation.Parse(b.Finish())
	if err != nil {
		return Reply{}, fmt.Errorf("reading the answer to %s %s: %w", name, typ, err)
	}
	return replyOf(resp), nil
}

// replyOf makes the Reply of a message.
func replyOf(resp *dns.Msg) Reply {
	out := Reply{RCode: dns.RcodeToString[resp.Rcode]}
	for _, rr := range resp.Answer {
		out.Answers = append(out.Answers, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	opt := resp.IsEdns0()
	if opt == nil {
		return out
	}
	var extra []string
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok {
			text := dns.ExtendedErrorCodeToString[e.InfoCode]
			if e.ExtraText != "" {
				text += ": " + e.ExtraText
			}
			extra = append(extra, text)
		}
	}
	out.Extra = strings.Join(extra, "; ")
	return out
}
