package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/musterdns/muster/cmd/internal/config"
)

// queryFlags are the flags of query.
type queryFlags struct {
	server  string
	tcp     bool
	short   bool
	timeout time.Duration
}

func (s *session) queryCommand() *cobra.Command {
	var f queryFlags
	cmd := &cobra.Command{
		Use: "query NAME [TYPE]", Short: "Ask the server over DNS", GroupID: groupLook,
		Args: arguments(1, 2), ValidArgsFunction: s.completeQuestion,
		Long: `Asks one question over DNS, as dig does, and prints the response. A NAME outside the
zones that does not end in a dot is taken as a service. Over UDP unless the answer does
not fit. It fails when the response has no answer.`,
		Example: `  muster query web
  muster query _http._tcp.web.svc.internal SRV
  muster query web AAAA --server 10.0.0.2:53 --short`,
		RunE: func(cmd *cobra.Command, args []string) error {
			typ := dnsmessage.TypeA
			if len(args) == 2 {
				var err error
				if typ, err = parseType(args[1]); err != nil {
					return err
				}
			}
			name, err := f.complete(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			return s.query(cmd.Context(), &f, name, typ)
		},
	}
	cmd.Flags().StringVar(&f.server, "server", "", "`address` of the DNS server; default: where the server at --addr answers")
	cmd.Flags().BoolVar(&f.tcp, "tcp", false, "ask over TCP at once")
	cmd.Flags().BoolVar(&f.short, "short", false, "print the data of the answer alone")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 2*time.Second, "how long to wait for a response; over UDP there are two tries")
	return s.online(cmd)
}

// defaultDNS is where a server answers by default.
const defaultDNS = "127.0.0.1:5300"

// complete finds the server to ask, unless it is given, and makes the name
// absolute. With a server given and a dot at the name's end there is nothing
// to ask the admin API for.
func (f *queryFlags) complete(ctx context.Context, s *session, name string) (dnsmessage.Name, error) {
	if f.server != "" {
		server, err := dnsServer(f.server)
		if err != nil {
			return dnsmessage.Name{}, err
		}
		f.server = server
	}
	if f.server == "" || !strings.HasSuffix(name, ".") {
		c, err := s.api()
		if err != nil {
			return dnsmessage.Name{}, err
		}
		// A server without an admin API to be reached can be asked all the same:
		// then the name is absolute.
		if st, err := c.Status(ctx); err == nil {
			zone := ""
			inside := false
			for _, z := range st.Zones {
				inside = inside || strings.HasSuffix("."+strings.ToLower(name)+".", "."+z.Name)
				if zone == "" && config.ZoneSource(z.Source).Services() {
					zone = z.Name
				}
			}
			if !inside && !strings.HasSuffix(name, ".") {
				name += "." + zone
			}
			if f.server == "" && len(st.DNS) > 0 {
				f.server = reachable(st.DNS[0])
			}
		}
	}
	f.server = cmp.Or(f.server, defaultDNS)
	out, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err == nil && name != "." && strings.Contains("."+name, "..") {
		err = errors.New("a label of it is empty")
	}
	if err != nil {
		return out, usagef("%q is no domain name: %w", name, err)
	}
	return out, nil
}

// reachable is where a listener can be asked from its own host.
func reachable(listen string) string {
	ap, err := netip.ParseAddrPort(listen)
	switch {
	case err != nil || !ap.Addr().IsUnspecified():
		return listen
	case ap.Addr().Is4():
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ap.Port()).String()
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), ap.Port()).String()
}

// dnsServer completes a server's address with port 53.
func dnsServer(text string) (string, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 53).String(), nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return "", usagef("--server %q: must be an IP address, with a port unless it is 53", text)
	}
	return ap.String(), nil
}

// queryTypes are the types that have a name here; any other is TYPE123.
var queryTypes = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "SRV": dnsmessage.TypeSRV, "TXT": dnsmessage.TypeTXT,
	"PTR": dnsmessage.TypePTR, "NS": dnsmessage.TypeNS, "SOA": dnsmessage.TypeSOA, "CNAME": dnsmessage.TypeCNAME,
	"MX": dnsmessage.TypeMX, "ANY": dnsmessage.TypeALL, "HTTPS": dnsmessage.TypeHTTPS, "SVCB": dnsmessage.TypeSVCB,
}

func parseType(text string) (dnsmessage.Type, error) {
	upper := strings.ToUpper(text)
	if t, ok := queryTypes[upper]; ok {
		return t, nil
	}
	var n uint16
	if _, err := fmt.Sscanf(upper, "TYPE%d", &n); err == nil { // RFC 3597 section 5
		return dnsmessage.Type(n), nil
	}
	return 0, usagef("%q is no type: use %s or TYPE123", text, strings.Join(typeNames(), ", "))
}

// typeNames are the names of queryTypes.
func typeNames() []string { return slices.Sorted(maps.Keys(queryTypes)) }

// completeQuestion proposes services for the first argument, and types for the second.
func (s *session) completeQuestion(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return typeNames(), cobra.ShellCompDirectiveNoFileComp
	}
	return s.completeServices(cmd, args, begun)
}

func typeName(t dnsmessage.Type) string {
	for name, u := range queryTypes {
		if u == t {
			return name
		}
	}
	return fmt.Sprintf("TYPE%d", uint16(t))
}

func (s *session) query(ctx context.Context, f *queryFlags, name dnsmessage.Name, typ dnsmessage.Type) error {
	start := time.Now()
	m, transport, err := f.exchange(ctx, name, typ)
	if err != nil {
		return err
	}
	if f.short {
		for _, r := range m.Answers {
			fmt.Fprintln(s.stdout, rdata(r.Body))
		}
	} else {
		printMessage(s.stdout, m)
		fmt.Fprintf(s.stdout, ";; from %s over %s in %s\n", f.server, transport, brief(time.Since(start)))
	}
	if m.RCode != dnsmessage.RCodeSuccess || len(m.Answers) == 0 {
		return &codeError{code: exitFailed}
	}
	return nil
}

func printMessage(w io.Writer, m *dnsmessage.Message) {
	var flags []string
	for _, f := range []struct {
		name string
		set  bool
	}{{"aa", m.Authoritative}, {"tc", m.Truncated}, {"ra", m.RecursionAvailable}, {"ad", m.AuthenticData}} {
		if f.set {
			flags = append(flags, f.name)
		}
	}
	fmt.Fprintf(w, ";; %s", rcodeName(extendedRCode(m)))
	if len(flags) > 0 {
		fmt.Fprintf(w, ", %s", strings.Join(flags, " "))
	}
	fmt.Fprintln(w)
	sections := []struct {
		name    string
		records []dnsmessage.Resource
	}{{"answer", m.Answers}, {"authority", m.Authorities}, {"additional", m.Additionals}}
	for _, sec := range sections {
		records := slices.DeleteFunc(slices.Clone(sec.records), func(r dnsmessage.Resource) bool { return r.Header.Type == dnsmessage.TypeOPT })
		if len(records) == 0 {
			continue
		}
		fmt.Fprintf(w, ";; %s\n", sec.name)
		for _, r := range records {
			fmt.Fprintf(w, "%s %d IN %s %s\n", r.Header.Name, r.Header.TTL, typeName(r.Header.Type), rdata(r.Body))
		}
	}
	for _, r := range m.Additionals {
		if opt, ok := r.Body.(*dnsmessage.OPTResource); ok {
			printOptions(w, opt)
		}
	}
}
