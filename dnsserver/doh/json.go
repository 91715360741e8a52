package doh

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/presentation"
	"github.com/musterdns/muster/dnsserver/wire"
)

// response is an answer in JSON, as Google's and Cloudflare's resolvers write it.
type response struct {
	Status   int
	TC       bool
	RD       bool
	RA       bool
	AD       bool
	CD       bool
	Question []question
	Answer   []record `json:",omitempty"`
	// Authority and Additional are there when they have something.
	Authority  []record `json:",omitempty"`
	Additional []record `json:",omitempty"`
	Comment    []string `json:",omitempty"`
}

type question struct {
	Name string `json:"name"`
	Type uint16 `json:"type"`
}

type record struct {
	Name string `json:"name"`
	Type uint16 `json:"type"`
	TTL  uint32
	Data string `json:"data"`
}

// serveJSON answers ?name=web.svc.internal&type=A. do and cd are flags of the query.
func (s *Server) serveJSON(w http.ResponseWriter, r *http.Request) {
	params := r.URL.Query()
	m := new(dns.Msg)
	typ, ok := parseType(params.Get("type"))
	name := params.Get("name")
	if _, valid := dns.IsDomainName(name); !ok || !valid || name == "" {
		http.Error(w, "name must be a domain name, type a type such as A, SRV or 65", http.StatusBadRequest)
		return
	}
	m.SetQuestion(dns.Fqdn(name), typ)
	m.Id = 0
	m.CheckingDisabled = flag(params.Get("cd"))
	m.SetEdns0(1232, flag(params.Get("do")))
	query, err := m.Pack()
	if err != nil {
		http.Error(w, "name: "+err.Error(), http.StatusBadRequest)
		return
	}
	reply, ok := s.exchange(r, query)
	var answer *dns.Msg
	if ok {
		answer, err = presentation.Parse(reply)
	}
	if !ok || err != nil {
		http.Error(w, "the question could not be answered", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", typeJSON)
	w.Header().Set("Cache-Control", cacheControl(reply))
	w.Header().Set("Access-Control-Allow-Origin", "*") // what DNS says is no secret of a page's
	_ = json.NewEncoder(w).Encode(toJSON(answer))      // the client may have gone
}

// flag reads a flag of a query: 1 or true.
func flag(s string) bool { return s == "1" || strings.EqualFold(s, "true") }

// parseType reads a type by name or number; none is A.
func parseType(s string) (uint16, bool) {
	if s == "" {
		return dns.TypeA, true
	}
	if t, ok := wire.ParseType(s); ok {
		return uint16(t), true
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n != 0
}

func toJSON(m *dns.Msg) response {
	out := response{
		Status: m.Rcode, TC: m.Truncated, RD: m.RecursionDesired, RA: m.RecursionAvailable, AD: m.AuthenticatedData, CD: m.CheckingDisabled,
		Question: []question{{m.Question[0].Name, m.Question[0].Qtype}},
		Answer:   records(m.Answer), Authority: records(m.Ns), Additional: records(m.Extra),
	}
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				text := dns.ExtendedErrorCodeToString[e.InfoCode]
				if e.ExtraText != "" {
					text += ": " + e.ExtraText
				}
				out.Comment = append(out.Comment, text)
			}
		}
	}
	return out
}

func records(list []dns.RR) []record {
	var out []record
	for _, rr := range list {
		h := rr.Header()
		if h.Rrtype != dns.TypeOPT {
			out = append(out, record{h.Name, h.Rrtype, h.Ttl, strings.TrimPrefix(rr.String(), h.String())})
		}
	}
	return out
}
