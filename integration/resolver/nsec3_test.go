package resolver_test

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterdns/muster/integration/fault"
)

// presigned is a zone with all that an NSEC3 proof may be needed for.
const presigned = `$TTL 60
$ORIGIN still.test.
@ SOA ns1 hostmaster 1 60 10 86400 60
@ NS ns1
ns1 A 192.0.2.1
www A 192.0.2.7
alias CNAME www
dangling CNAME nothing
*.wild A 192.0.2.9
*.wildc CNAME www
dn DNAME elsewhere
a.b.ent TXT "x"
sub NS ns.sub
ns.sub A 192.0.2.99
x.deep NS ns.sub
secure NS ns.sub
secure DS 1 13 2 F946C0B78A4B5664596BCCD5E4979AD5EFD20A3984DD71E0B2FDA5B176AE7E66
`

// hashedQuestions are asked of zones signed with NSEC3.
var hashedQuestions = [][2]string{
	{"still.test", "SOA"},
	{"still.test", "NSEC3PARAM"},
	{"still.test", "MX"},
	{"www.still.test", "A"},
	{"www.still.test", "TXT"},
	{"alias.still.test", "A"},
	{"alias.still.test", "TXT"},
	{"dangling.still.test", "A"},
	{"x.wild.still.test", "A"},
	{"y.x.wild.still.test", "A"},
	{"x.wild.still.test", "TXT"},
	{"x.wildc.still.test", "A"},
	{"x.wildc.still.test", "TXT"},
	{"x.dn.still.test", "A"},
	{"b.ent.still.test", "A"},
	{"ent.still.test", "A"},
	{"x.b.ent.still.test", "A"},
	{"nope.still.test", "A"},
	{"a.nope.still.test", "A"},
	{"secure.still.test", "DS"},
	{"sub.still.test", "DS"},
	{"x.deep.still.test", "DS"},
	{"deep.still.test", "A"},
}

// signers are the programs that sign with NSEC3, by how they are called in a directory
// with the zone's file and key.
var signers = []struct {
	name, program, pkg string
	args               []string
}{
	{"dnssec-signzone", "dnssec-signzone", "bind9-utils", []string{"-S", "-3", "-", "-H", "0", "-o", "still.test", "-f", "signed", "still"}},
	{"dnssec-signzone, salt and opt-out", "dnssec-signzone", "bind9-utils", []string{"-S", "-A", "-3", "A1B2C3D4", "-H", "5", "-o", "still.test", "-f", "signed", "still"}},
	{"ldns-signzone", "ldns-signzone", "ldnsutils", []string{"-n", "-s", "c0ffee", "-t", "3", "-o", "still.test", "-f", "signed", "still", "KEY"}},
}

// TestNSEC3_EveryAnswerIsValid serves zones that others have signed, and has every answer
// validated by delv and unbound.
func TestNSEC3_EveryAnswerIsValid(t *testing.T) {
	delv, keygen := find(t, "delv", "bind9-dnsutils"), find(t, "dnssec-keygen", "bind9-utils")
	for _, s := range signers {
		t.Run(s.name, func(t *testing.T) {
			dir := t.TempDir()
			exe := func(program string, args ...string) string {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), program, args...)
				cmd.Dir = dir
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%s: %v\n%s", program, err, out)
				}
				return strings.TrimSpace(string(out))
			}
			write(t, filepath.Join(dir, "still"), presigned)
			key := exe(keygen, "-a", "ECDSAP256SHA256", "-f", "KSK", "still.test")
			args := s.args
			if args[len(args)-1] == "KEY" {
				args = append(args[:len(args)-1:len(args)-1], key)
			}
			if s.program == "dnssec-signzone" {
				args = append([]string{"-z"}, args...)
			}
			exe(find(t, s.program, s.pkg), args...)
			l := newLab(t)
			srv, err := l.Run(t.Context(), fault.Settings{Zones: []string{fmt.Sprintf("{name: still.test, file: %q}", filepath.Join(dir, "signed"))}})
			if err != nil {
				t.Fatal(err)
			}
			host, port, err := net.SplitHostPort(srv.DNS)
			if err != nil {
				t.Fatal(err)
			}
			anchor := exe("sed", "-n", "/^;/d; s/ \\([^ ]*\\)$/\\1/p", key+".key") // the key in one piece
			unbound := startValidating(t, host, port, map[string]string{"still.test": anchor})
			for _, q := range hashedQuestions {
				err := validate(t, delv, host, port, anchor, q[0], q[1])
				if strings.Contains(s.name, "opt-out") && strings.HasSuffix(q[0], ".wild.still.test") && q[1] == "A" {
					// That there is no nearer name is not proven (RFC 5155 section 6).
					if !errors.Is(err, errNotValid) || !strings.Contains(err.Error(), "; unsigned answer") {
						t.Errorf("%s %s: %v, want an unsigned answer", q[0], q[1], err)
					}
					continue
				}
				if err != nil {
					t.Error(err)
				}
				// With opt-out what is not there is not authenticated (RFC 5155 section 9.2).
				if err := unbound(q[0], q[1]); err != nil && (!strings.Contains(s.name, "opt-out") || !errors.Is(err, errNotValid)) {
					t.Errorf("unbound, %s %s: %v", q[0], q[1], err)
				}
			}
		})
	}
}
