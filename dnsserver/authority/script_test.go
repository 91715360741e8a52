package authority_test

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/authority"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/zonefile"
)

// exchange puts a packed query to the handler as dnsserver would, and decodes
// what comes back with another implementation. The verdict is Send, or the test
// fails.
func exchange(t testing.TB, h *authority.Handler, query []byte, from dnsserver.Client) *dns.Msg {
	t.Helper()
	var q wire.Query
	if d := wire.ParseQuery(query, &q); d != wire.Proceed {
		t.Fatalf("ParseQuery: disposition %d", d)
	}
	var b wire.Builder
	b.Start(make([]byte, wire.MaxMessage), &q, limit(&q, from.Transport))
	if v := h.ServeDNS(&b, &q, &from); v != dnsserver.Send {
		t.Fatalf("ServeDNS: verdict %d", v)
	}
	packed := b.Finish()
	if n := limit(&q, from.Transport); len(packed) > n {
		t.Fatalf("%d octets, limit %d", len(packed), n)
	}
	m := new(dns.Msg)
	if err := m.Unpack(packed); err != nil {
		t.Fatalf("unpacking %x: %v", packed, err)
	}
	return m
}

func limit(q *wire.Query, tr dnsserver.Transport) int {
	switch {
	case tr != dnsserver.UDP:
		return wire.MaxMessage
	case q.EDNS:
		return min(int(q.UDPSize), wire.MaxPayload)
	}
	return wire.MinPayload
}

// client is a client on this host that asks over UDP.
func client() dnsserver.Client {
	return dnsserver.Client{Addr: netip.MustParseAddrPort("127.0.0.1:5353"), Transport: dnsserver.UDP}
}

// TestHandler_ServeDNS plays the scripts in testdata: zones, then queries, each
// with the whole response that is expected. See testdata/README.
func TestHandler_ServeDNS(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			s := readScript(t, file)
			h, err := authority.New(s.config)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := zones.NewTree(s.zones)
			if err != nil {
				t.Fatal(err)
			}
			h.SetTree(tree)
			for _, step := range s.steps {
				t.Run(step.title, func(t *testing.T) { step.play(t, h) })
			}
		})
	}
}

// script is one file of testdata.
type script struct {
	config authority.Config
	zones  []*zones.Zone
	steps  []step
}

// step is one query and the response expected.
type step struct {
	title    string
	at       string // file:line
	query    *dns.Msg
	from     dnsserver.Client
	status   string
	sections [3][]string
	edes     []string
	sizes    []string // of the sections, when their records are not listed
}

func (s *step) play(t *testing.T, h *authority.Handler) {
	packed, err := s.query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m := exchange(t, h, packed, s.from)
	if m.Id != s.query.Id || len(m.Question) != 1 || m.Question[0] != s.query.Question[0] {
		t.Errorf("%s: id %d question %v, asked with %d %v", s.at, m.Id, m.Question, s.query.Id, s.query.Question)
	}
	if got := status(m); got != s.status {
		t.Errorf("%s: got %q, want %q", s.at, got, s.status)
	}
	if (m.IsEdns0() != nil) != (s.query.IsEdns0() != nil) {
		t.Errorf("%s: OPT record in the response: %v, in the query: %v", s.at, m.IsEdns0() != nil, s.query.IsEdns0() != nil)
	}
	if s.sizes != nil {
		var got []string
		for _, rrs := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
			got = append(got, strconv.Itoa(len(texts(rrs))))
		}
		if !slices.Equal(got, s.sizes) {
			t.Errorf("%s: %s records, want %s", s.at, got, s.sizes)
		}
		return
	}
	for i, rrs := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		want := slices.Clone(s.sections[i])
		slices.Sort(want)
		if diff := cmp.Diff(want, texts(rrs)); diff != "" {
			t.Errorf("%s: section %d (-want +got):\n%s", s.at, i, diff)
		}
	}
	if diff := cmp.Diff(s.edes, edes(m)); diff != "" {
		t.Errorf("%s: extended errors (-want +got):\n%s", s.at, diff)
	}
}

// status is the code and all flags that are set, present and absent told alike.
func status(m *dns.Msg) string {
	s := []string{dns.RcodeToString[m.Rcode]}
	for _, f := range []struct {
		name string
		set  bool
	}{{"qr", m.Response}, {"aa", m.Authoritative}, {"tc", m.Truncated}, {"rd", m.RecursionDesired}, {"ra", m.RecursionAvailable}, {"ad", m.AuthenticatedData}, {"cd", m.CheckingDisabled}, {"z", m.Zero}} {
		if f.set {
			s = append(s, f.name)
		}
	}
	return strings.Join(s, " ")
}

// texts is the records, without OPT, one space between fields, sorted.
func texts(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, strings.Join(strings.Fields(rr.String()), " "))
		}
	}
	slices.Sort(out)
	return out
}

func edes(m *dns.Msg) []string {
	var out []string
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				out = append(out, strings.TrimSpace(fmt.Sprintf("%d %s", e.InfoCode, e.ExtraText)))
			}
		}
	}
	return out
}

// readScript reads a file of the form that testdata/README tells.
func readScript(t *testing.T, file string) *script {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &script{}
	var title, origin string
	var zone []string
	section := -1
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case origin != "" && word == "end":
			z, warnings, err := zonefile.Parse(strings.NewReader(strings.Join(zone, "\n")), file, origin)
			if err != nil {
				t.Fatalf("%s:%d: %v", file, n, err)
			}
			for _, w := range warnings {
				t.Logf("%s", w)
			}
			s.zones = append(s.zones, z)
			origin, zone = "", nil
		case origin != "":
			zone = append(zone, line)
		case word == "zone":
			origin = rest
		case word == "dynamic":
			s.zones = append(s.zones, newDynamic(t, rest))
		case word == "access", word == "version", word == "why":
			s.configure(t, word, strings.Fields(rest))
		case word == "#":
			title = rest
		case word == "query":
			s.steps = append(s.steps, newStep(t, title, fmt.Sprintf("%s:%d", file, n), strings.Fields(rest)))
			section = -1
		case word == "answer", word == "authority", word == "additional":
			section = slices.Index([]string{"answer", "authority", "additional"}, word)
		case word == "ede":
			last := &s.steps[len(s.steps)-1]
			last.edes = append(last.edes, rest)
		case word == "records":
			s.steps[len(s.steps)-1].sizes = strings.Fields(rest)
		case word == "":
			section = -1
		case section >= 0:
			rr, err := dns.NewRR(line)
			if err != nil {
				t.Fatalf("%s:%d: %v", file, n, err)
			}
			last := &s.steps[len(s.steps)-1]
			last.sections[section] = append(last.sections[section], texts([]dns.RR{rr})...)
		case len(s.steps) > 0 && s.steps[len(s.steps)-1].status == "":
			s.steps[len(s.steps)-1].status = strings.TrimSpace(line)
		default:
			t.Fatalf("%s:%d: %q is nothing that a script has", file, n, line)
		}
	}
	if err := lines.Err(); err != nil || len(s.steps) == 0 {
		t.Fatalf("%s: %d queries, %v", file, len(s.steps), err)
	}
	return s
}

// configure reads a line of configuration.
func (s *script) configure(t *testing.T, word string, fields []string) {
	switch word {
	case "version":
		s.config.Chaos.Version = strings.Join(fields, " ")
	case "why":
		for _, f := range fields {
			s.config.WhyAllow = append(s.config.WhyAllow, netip.MustParsePrefix(f))
		}
	case "access":
		r := authority.Rule{Zone: fields[0]}
		for _, f := range fields[1:] {
			r.Allow = append(r.Allow, netip.MustParsePrefix(f))
		}
		s.config.Access = append(s.config.Access, r)
	}
}

// newStep reads "NAME TYPE [+tcp] [+rd] [+edns=SIZE] [+do] [class=CH] [from=ADDR]".
func newStep(t *testing.T, title, at string, fields []string) step {
	typ, ok := dns.StringToType[fields[1]]
	if !ok {
		n, err := strconv.ParseUint(strings.TrimPrefix(fields[1], "TYPE"), 10, 16)
		if err != nil {
			t.Fatalf("%s: type %q", at, fields[1])
		}
		typ = uint16(n)
	}
	s := step{title: title + " " + fields[0] + " " + fields[1], at: at, from: client(), query: new(dns.Msg)}
	s.query.SetQuestion(fields[0], typ)
	s.query.RecursionDesired = false
	for _, f := range fields[2:] {
		option, value, _ := strings.Cut(f, "=")
		switch option {
		case "+tcp":
			s.from.Transport = dnsserver.TCP
		case "+rd":
			s.query.RecursionDesired = true
		case "+edns":
			size, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				t.Fatalf("%s: %v", at, err)
			}
			s.query.SetEdns0(uint16(size), false)
		case "+do":
			s.query.SetEdns0(1232, true)
		case "class":
			s.query.Question[0].Qclass = dns.StringToClass[value]
		case "from":
			s.from.Addr = netip.AddrPortFrom(netip.MustParseAddr(value), 5353)
		default:
			t.Fatalf("%s: option %q", at, f)
		}
	}
	return s
}
