package resolver_test

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/musterdns/muster/integration/fault"
)

// What people type, and what must stand in the output, blanks counted as one; a
// text that begins with ! must not.
var typed = []struct {
	name, command string
	want          []string
}{
	{
		"an address", "dig web.svc.internal",
		[]string{"status: NOERROR", "flags: qr aa rd;", "ANSWER: 1,", "EDNS: version: 0, flags:; udp: 1232", "web.svc.internal. 5 IN A 10.9.0.1", "(UDP)"},
	},
	{
		"an address by kdig", "kdig web.svc.internal",
		[]string{"status: NOERROR", "Flags: qr aa rd;", "ANSWER: 1;", "web.svc.internal. 5 IN A 10.9.0.1", "(UDP)"},
	},
	{
		"several questions on one connection", "kdig +tcp +keepopen web.svc.internal A -q one.web.svc.internal A",
		[]string{"web.svc.internal. 5 IN A 10.9.0.1", "one.web.svc.internal. 5 IN A 10.9.0.1", "(TCP)", "!WARNING"},
	},
	{
		"the case of the question", "dig WeB.Svc.INTERNAL",
		[]string{";WeB.Svc.INTERNAL. IN A", "WeB.Svc.INTERNAL. 5 IN A 10.9.0.1"},
	},
	{
		"a port with the address beside it", "dig web.svc.internal SRV",
		[]string{"ANSWER: 1,", "ADDITIONAL: 2", "web.svc.internal. 5 IN SRV 0 1 8080 one.web.svc.internal.", "one.web.svc.internal. 5 IN A 10.9.0.1"},
	},
	{
		"a client without EDNS", "dig +noedns web.svc.internal SRV",
		[]string{"status: NOERROR", "ADDITIONAL: 1", "!EDNS:", "!OPT PSEUDOSECTION"},
	},
	{
		"all of a large static set, by TCP after a truncated answer", "dig +bufsize=512 large.test",
		[]string{"Truncated, retrying in TCP mode", "status: NOERROR", "ANSWER: 60,", "(TCP)"},
	},
	{
		"a truncated answer as it is", "dig +bufsize=512 +ignore large.test",
		[]string{"flags: qr aa tc rd;", "(UDP)", "!TCP"},
	},
	{
		"fewer of a large service rather than a truncated answer", "dig +bufsize=512 +ignore big.svc.internal SRV",
		[]string{"flags: qr aa rd;", "(UDP)", "!Truncated"},
	},
	{
		"RFC 8482: ANY over UDP", "dig +notcp web.svc.internal ANY",
		[]string{"status: NOERROR", "ANSWER: 1,", "web.svc.internal. 3600 IN HINFO \"RFC8482\" \"\""},
	},
	{
		"the name of an address", "dig -x 10.9.0.1",
		[]string{"status: NOERROR", "1.0.9.10.in-addr.arpa. 5 IN PTR one.web.svc.internal."},
	},
	{
		"no name of an address", "dig -x 10.9.0.99",
		[]string{"status: NXDOMAIN", "9.10.in-addr.arpa. 2 IN SOA"},
	},
	{
		"the version", "dig version.bind TXT CH",
		[]string{"status: NOERROR", "version.bind. 0 CH TXT \"muster "},
	},
	{
		"the server's name", "kdig id.server TXT CH",
		[]string{"status: NOERROR", "id.server. 0 CH TXT \"lab\""},
	},
	{
		"a name that does not exist", "dig absent.svc.internal",
		[]string{"status: NXDOMAIN", "flags: qr aa rd;", "AUTHORITY: 1,", "svc.internal. 2 IN SOA"},
	},
	{
		"a type that does not exist", "dig web.svc.internal MX",
		[]string{"status: NOERROR", "ANSWER: 0,", "AUTHORITY: 1,", "svc.internal. 2 IN SOA"},
	},
	{
		"why an instance is in", "dig +short _why.web.svc.internal TXT",
		[]string{"one", "passing"},
	},
	{
		"a name outside", "dig www.example.com",
		[]string{"status: REFUSED", "EDE: 20 (Not Authoritative)", "!ra"},
	},
	{
		"a transfer", "dig svc.internal AXFR",
		[]string{"Transfer failed.", "!SOA"},
	},
	{
		"a version of EDNS to come", "dig +edns=1 +noednsneg web.svc.internal",
		[]string{"status: BADVERS", "ANSWER: 0,"},
	},
}

func TestDig_PrintsWhatIsAnswered(t *testing.T) {
	l := newLab(t)
	zone := "$ORIGIN large.test.\n@ 60 SOA ns1 hostmaster 1 60 60 60 60\n@ 60 NS ns1\nns1 60 A 10.9.2.1\n"
	for i := range 60 {
		zone += fmt.Sprintf("@ 60 A 10.9.2.%d\n", i+2)
	}
	write(t, l.Path("large.zone"), zone)
	s, err := l.Run(t.Context(), fault.Settings{Zones: []string{
		"{name: 9.10.in-addr.arpa., source: reverse}",
		fmt.Sprintf("{name: large.test., file: %q}", l.Path("large.zone")),
	}})
	if err != nil {
		t.Fatal(err)
	}
	register(t, l, "one", "10.9.0.1")
	for i := range 20 {
		run(t, l, "register", "big", "--id", fmt.Sprintf("i%d", i), "--address", fmt.Sprintf("10.9.1.%d", i), "--port", "8080", "--check", "none", "--forever")
	}
	host, port, err := net.SplitHostPort(s.DNS)
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string]string{"dig": "bind9-dnsutils", "kdig": "knot-dnsutils"}
	for _, row := range typed {
		t.Run(row.name, func(t *testing.T) {
			argv := strings.Fields(row.command)
			argv = append([]string{find(t, argv[0], packages[argv[0]]), "@" + host, "-p", port}, argv[1:]...)
			out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", row.command, err, out)
			}
			text := strings.Join(strings.Fields(string(out)), " ")
			for _, want := range row.want {
				absent, unwanted := strings.CutPrefix(want, "!")
				if unwanted == strings.Contains(text, absent) {
					t.Errorf("%s: want %q in\n%s", row.command, want, out)
				}
			}
		})
	}
}
