package zonefile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/zonefile"
)

// TestLoad reads every file in testdata, each named for what it shows. Comments
// in them tell what is said of them: "; error: LINE: TEXT" and "; warning: ...".
// A file without an error in it makes a zone.
func TestLoad(t *testing.T) {
	files, err := filepath.Glob("testdata/*.zone")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".zone"), "_", " "), func(t *testing.T) {
			wantErrors, wantWarnings := expected(t, file)
			z, warnings, err := zonefile.Load(file, "example.test.", nil)
			var gotErrors, gotWarnings []string
			if err != nil {
				gotErrors = strings.Split(err.Error(), "\n")
			}
			for _, w := range warnings {
				gotWarnings = append(gotWarnings, w.String())
			}
			if diff := cmp.Diff(wantErrors, gotErrors); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(wantWarnings, gotWarnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if (z == nil) != (err != nil) {
				t.Errorf("zone %v with error %v", z, err)
			}
		})
	}
}

// expected reads the comments of a file.
func expected(t *testing.T, file string) (errs, warnings []string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "; error: "); ok {
			errs = append(errs, file+":"+text)
		}
		if text, ok := strings.CutPrefix(line, "; warning: "); ok {
			warnings = append(warnings, file+":"+text)
		}
	}
	return errs, warnings
}

func TestLoad_records(t *testing.T) {
	for file, want := range map[string]int{
		"a_plain_zone": 6, "generated_records": 5,
		"includes_of_all_kinds": 2 + 3 + 1 + 3, // the duplicate is dropped
	} {
		z, _, err := zonefile.Load("testdata/"+file+".zone", "example.test.", nil)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		} else if z.Len() != want {
			t.Errorf("%s: %d records, want %d", file, z.Len(), want)
		}
	}
}

func TestLoad_files(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/secret", []byte("root:x:0:0:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	zones := filepath.Join(dir, "zones")
	if err := os.Mkdir(zones, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../secret", zones+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(zones+"/a.zone", []byte("$INCLUDE link\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want string }{
		{"a link out of the directory is not followed", zones + "/a.zone", "path escapes"},
		{"a missing file", zones + "/b.zone", "no such file"},
		{"a missing directory", dir + "/nope/b.zone", "no such file"},
		{"a directory", zones, "not a regular file"},
		{"a device", "/dev/zero", "not a regular file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := zonefile.Load(tt.path, "example.test.", nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), filepath.Base(tt.path)) {
				t.Errorf("got %v, want something with %q and the file's name", err, tt.want)
			}
			if strings.Contains(fmt.Sprint(err), "root:x") {
				t.Errorf("the error tells the content: %v", err)
			}
		})
	}
}

func TestLoad_includes(t *testing.T) {
	dir := t.TempDir()
	for level := range 4 { // ten times ten times ten times ten files to open
		text := strings.Repeat(fmt.Sprintf("$INCLUDE %d\n", level+1), 10)
		if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, level), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/4", []byte("www.example.test. 60 A 192.0.2.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := zonefile.Load(dir+"/0", "example.test.", nil)
	if err == nil || !strings.Contains(err.Error(), "more than 1000 $INCLUDE lines followed") {
		t.Errorf("got %v", err)
	}
}

const head = "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns.elsewhere.test.\n"

func parse(text string) (warnings []zonefile.Warning, err error) {
	_, warnings, err = zonefile.Parse(strings.NewReader(text), "x.zone", "example.test.")
	return warnings, err
}

func TestParse(t *testing.T) {
	t.Run("there is no directory to include from", func(t *testing.T) {
		if _, err := parse(head + "$INCLUDE zonefile.go\n"); err == nil || !strings.Contains(err.Error(), "$INCLUDE directive not allowed") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an origin that is no name", func(t *testing.T) {
		if _, _, err := zonefile.Parse(strings.NewReader(head), "x.zone", "a..b"); err == nil || !strings.HasPrefix(err.Error(), `zone file x.zone: origin: parsing name "a..b"`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("problems are told up to a number", func(t *testing.T) {
		_, err := parse(head + strings.Repeat("www CH A 192.0.2.1\n", 60))
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != 51 || lines[50] != "and 10 more errors" {
			t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
		}
		warnings, err := parse(head + strings.Repeat("www A 192.0.2.1\n", 61))
		if err != nil || len(warnings) != 51 || warnings[50].Text != "and 10 more warnings" {
			t.Errorf("%d warnings, %v", len(warnings), err)
		}
	})
	t.Run("$GENERATE is bounded over the whole file", func(t *testing.T) {
		_, err := parse(head + strings.Repeat("$GENERATE 0-65535 h A 192.0.2.1\n", 3))
		if err == nil || !strings.HasSuffix(err.Error(), "$GENERATE makes more than 131072 records") {
			t.Errorf("got %v", err)
		}
	})
}

func TestParse_TypesThatOthersStandFor(t *testing.T) {
	z, warnings, err := zonefile.Parse(strings.NewReader(head+"wallet 60 IN WALLET \"a b\" c\nwallet TXT t\ncla\tcla x\nresinfo RESINFO qnamemin\n"+
		"nsap 60 IN NSAP ( 0x47.0005 ; of RFC 1706\n .80 )\nnsap IN TXT \"NSAP 0x\"\n"+
		"groups 60 HTTPS 1 . mandatory=alpn,tls-supported-groups tls-supported-groups=29,4588 alpn=h2\n"+
		"groups TXT tls-supported-groups=29\nquoted SVCB 1 . ( mandatory=\"tls-supported-groups\" ; first\n\ttls-supported-groups=\"23\" )\n"), "x.zone", "example.test.")
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	tree, err := zones.NewTree([]*zones.Zone{z})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		label, rdata string
		typ          wire.Type
	}{
		{"wallet", "\x03a b\x01c", wire.TypeWALLET},
		{"wallet", "\x01t", wire.TypeTXT},
		{"cla", "\x01x", wire.TypeCLA},
		{"resinfo", "\x08qnamemin", wire.TypeRESINFO},
		{"nsap", "\x47\x00\x05\x80", wire.TypeNSAP},
		{"nsap", "\x07NSAP 0x", wire.TypeTXT},
		{"groups", "\x00\x01\x00" + "\x00\x00\x00\x04\x00\x01\x00\x09" + "\x00\x01\x00\x03\x02h2" + "\x00\x09\x00\x04\x00\x1d\x11\xec", wire.TypeHTTPS},
		{"groups", "\x17tls-supported-groups=29", wire.TypeTXT},
		{"quoted", "\x00\x01\x00" + "\x00\x00\x00\x02\x00\x09" + "\x00\x09\x00\x02\x00\x17", wire.TypeSVCB},
	} {
		name, err := wire.ParseName(want.label + ".example.test.")
		if err != nil {
			t.Fatal(err)
		}
		var a zones.Answer
		tree.Lookup(&name, want.typ, &a)
		if a.Kind != zones.Found {
			t.Errorf("%s %s: kind %d", want.label, want.typ, a.Kind)
			continue
		}
		for rdata := range a.RRset.All {
			if string(rdata) != want.rdata {
				t.Errorf("%s %s: %q, want %q", want.label, want.typ, rdata, want.rdata)
			}
		}
	}
}

// Forms that standards allow and the parser does not know are read as those that it does.
func TestParse_FormsThatAreRewritten(t *testing.T) {
	for _, tt := range []struct{ text, like string }{
		{"LOC 60 9 N 24 39 E 10 20 2000 20", "LOC 60 9 0.000 N 24 39 0.000 E 10m 20m 2000m 20m"},
		{"LOC 60 N 24 E 10m", "LOC 60 0 0 N 24 0 0 E 10m"},
		{"loc 60 9 1.5 s 24 39 2 w 10m", "LOC 60 9 1.5 S 24 39 2 W 10m"},
		{"NAPTR 1 2 u E2U+sip !a! .", `NAPTR 1 2 "u" "E2U+sip" "!a!" .`},
		{`NAPTR ( 1 2 "" ; flags` + "\n" + ` "x y" ; service` + "\n" + ` "" a )`, `NAPTR 1 2 "" "x y" "" a`},
		{"NID 10 14:4fff:ff20:ee64", "NID 10 0014:4fff:ff20:ee64"},
		{"L64 10 2001:db8:0:1", "L64 10 2001:0db8:0000:0001"},
		{`X25 "123456789"`, "X25 123456789"},
		{`GPOS "-22.6882" "116.8652" "250.0"`, "GPOS -22.6882 116.8652 250.0"},
		{`LOC \# 16 00121316800000008000000000989680`, `TYPE29 \# 16 00121316800000008000000000989680`},
		{`NSAP \# 1 47`, `TYPE22 \# 1 47`},
	} {
		want, got := records(t, tt.like), records(t, tt.text)
		if len(got) != 3 || !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", tt.text, got, want)
		}
	}
}

// Types that the parser lacks, or reads wrongly, have the octets that BIND's named-rrchecker
// makes of the same text.
func TestParse_TypesThatTheParserLacks(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"WKS ( 192.0.2.1 TCP ; or 6\n telnet smtp 80 )", "WKS c0000201060000014000000000000080"},
		{"wks 192.0.2.1 17", "WKS c000020111"},
		{`WKS \# 6 c0000201 0640`, "WKS c00002010640"},
		{`ISDN "isdn-address"`, "ISDN 0c6973646e2d61646472657373"},
		{`ISDN a "\098 \"c"`, "ISDN 01610462202263"},
		{"NXT a.secure.nil. NS SOA MX SIG KEY LOC NXT", "NXT 016106736563757265036e696c00220100c6"},
		{"ATMA +61.2.0000.0000", "ATMA 013631323030303030303030"},
		{"ATMA 4700.0580", "ATMA 0047000580"},
		{"A6 0 2001:db8::1", "A6 0020010db8000000000000000000000001"},
		{"A6 1 ffff::ffff:ffff:ffff:ffff a", "A6 017fff000000000000ffffffffffffffff0161076578616d706c65047465737400"},
		{"A6 128 .", "A6 8000"},
		{"SINK 8 0 2 l4 ik", "SINK 0800029788a4"},
		{"SINK 1 0 0", "SINK 010000"},
		{"DSYNC CDS NOTIFY 5300 a", "DSYNC 003b0114b40161076578616d706c65047465737400"},
		{"DSYNC TYPE65535 255 65535 .", "DSYNC ffffffffff00"},
		{"HHIT AQID BAUG", "HHIT 010203040506"},
		{"BRID AQID", "BRID 010203"},
		{`URI 10 20 "` + strings.Repeat("u", 300) + `"`, "URI 000a0014" + strings.Repeat("75", 300)},
		{`DOA 4294967295 1 3 text/plain -`, "DOA ffffffff00000001030a746578742f706c61696e"},
		{`DOA 0 1 2 "" aHR0 cA==`, "DOA 0000000000000001020068747470"},
		{"AMTRELAY 10 1 3 a", "AMTRELAY 0a830161076578616d706c65047465737400"},
		{"AMTRELAY 0 1 1 192.0.2.1", "AMTRELAY 0081c0000201"},
		{"AMTRELAY 0 0 2 ::", "AMTRELAY 000200000000000000000000000000000000"},
		{"AMTRELAY 0 1 0 .", "AMTRELAY 0080"},
		{"WALLET ( a\n b )", "WALLET 01610162"},
		{"CDS 1 RSASHA1 sha-256 " + strings.Repeat("00", 32), "CDS 00010502" + strings.Repeat("00", 32)},
	} {
		if got := records(t, tt.text); len(got) != 3 || !strings.HasSuffix(strings.Join(got, "\n"), " "+tt.want) && !slices.Contains(got, `"\x01x\aexample\x04test\x00" `+tt.want) {
			t.Errorf("%s: %q, want %s", tt.text, got, tt.want)
		}
	}
}

// records are those of a zone with one more, as text.
func records(t *testing.T, text string) (out []string) {
	t.Helper()
	z, _, err := zonefile.Parse(strings.NewReader(head+"x "+text+"\n"), "x.zone", "example.test.")
	if err != nil {
		return []string{err.Error()}
	}
	tree, err := zones.NewTree([]*zones.Zone{z})
	if err != nil {
		t.Fatal(err)
	}
	e, err := tree.Export(t.Context(), z)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(e.Records, e.SOA) {
		out = append(out, fmt.Sprintf("%q %s %x", r.Owner, r.Type, r.RData))
	}
	return out
}

// What tls-supported-groups and NSAP cannot be is refused where it stands.
func TestParse_TypesThatAreRewritten_errors(t *testing.T) {
	for text, want := range map[string]string{
		"a HTTPS 1 . alpn=h2 )\n":             "a ) without its (",
		"a HTTPS 1 . alpn=h2 (\n":             "a parenthesis that is not closed",
		"a HTTPS 1 . alpn=h2 (":               "a parenthesis that is not closed",
		"a LOC 60 0 0 N 24 0 0 E 9m )\n":      "a ) without its (",
		"a NSEC b. A )\n":                     "a ) without its (",
		"a NAPTR ( 1 2 u s r .\n":             "x.zone:",
		"a LOC 60 1 1 1 N 24 E 10m\n":         "x.zone:",
		"a NAPTR 1 2 \"u s r .\n":             "x.zone:",
		"a NSAP 0x4\n":                        `x.zone:4:`,
		"a NSAP 47\n":                         "bad NSAP record",
		"a NSAP\n":                            "x.zone:4:",
		"a WKS 192.0.2.1 tcp nosuchservice\n": "those without a usual name as numbers",
		"a WKS 192.0.2.1 tcp 65536\n":         "bad WKS record",
		"a WKS \\# 6 c000\n":                  "a length and that many pairs",
		"a WKS \\#\n":                         "a length and that many pairs",
		"a ISDN a b c\n":                      "bad ISDN record",
		"a ISDN \\25\n":                       "bad ISDN record",
		"a NXT b. TYPE128\n":                  "types below 128",
		"a ATMA +\n":                          "bad ATMA record",
		"a A6 64 ::1\n":                       "bad A6 record",
		"a A6 0 ::1 b\n":                      "bad A6 record",
		"a SINK 1 0\n":                        "bad SINK record",
		"a DSYNC CDS NOTIFY 65536 b\n":        "bad DSYNC record",
		"a HHIT !\n":                          "bad HHIT record",
		"a URI 1 2 target\n":                  "a target in quotes",
		"a URI 1 2 \"" + strings.Repeat("u", 65400) + "\"\n": "octets: at most",
		"a DOA 0 1 2 \"\" - x\n":                             "bad DOA record",
		"a AMTRELAY 0 1 1 ::\n":                              "bad AMTRELAY record",
		"a AMTRELAY 0 1 3 b..c\n":                            "bad AMTRELAY record, name",
		"a AMTRELAY ( 0 0 0 .\n":                             "not closed",
		"a NSAP 0x\n":                                        "bad NSAP record",
		"a HTTPS 1 . tls-supported-groups=\n":                "tls-supported-groups: ",
		"a HTTPS 1 . tls-supported-groups=x\n":               "tls-supported-groups: ",
		"a HTTPS 1 . tls-supported-groups=65536\n":           "tls-supported-groups: ",
		"a HTTPS 1 . tls-supported-groups=29,\n":             "tls-supported-groups: ",
		"a HTTPS 1 . tls-supported-groups=29,23,29\n":        "tls-supported-groups must have numbers, each once",
		"a HTTPS 1 . tls-supported-groups\n":                 "tls-supported-groups must have numbers, each once",
		"a HTTPS 1 . key9=\"\\000\"\n":                       "tls-supported-groups must have numbers, each once",
		"a HTTPS 1 . mandatory=tls-supported-groups\n":       "key9 is mandatory, and is not there",
		"a HTTPS 1 . xtls-supported-groups=29\n":             "bad",
	} {
		_, err := parse(head + text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "x.zone:") {
			t.Errorf("%q: got %v, want x.zone:... %s", text, err, want)
		}
	}
}

func TestParse_ReverseNamesLeadToHosts(t *testing.T) {
	_, _, err := zonefile.Parse(strings.NewReader(head+`1 PTR a-host_1.example.test.
2 PTR !@#3.example.test.
b._dns-sd._udp PTR !@#3.example.test.
b._dns-sd._tcp PTR !@#3.example.test.
`), "x.zone", "2.0.192.in-addr.arpa.")
	const want = "x.zone:5: PTR of 2.2.0.192.in-addr.arpa.: !\\@#3.example.test. is no name of a host (RFC 1123 section 2.1)\n" +
		"x.zone:7: PTR of b._dns-sd._tcp.2.0.192.in-addr.arpa.: !\\@#3.example.test. is no name of a host (RFC 1123 section 2.1)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want\n%s", err, want)
	}
}

// TestParse_large: the cost of a file grows no faster than the file.
func TestParse_large(t *testing.T) {
	var b strings.Builder
	b.WriteString(head)
	for i := range 10000 { // one owner with many types and many records, every name an alias' neighbour
		fmt.Fprintf(&b, "w TYPE%d \\# 1 00\nw TXT \"%d\"\n", 300+i%32000, i)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := parse(b.String()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if per := (after.TotalAlloc - before.TotalAlloc) / 20000; per > 4096 {
		t.Errorf("%d octets allocated a record", per)
	}
}

// FuzzParse reads anything to an end. What makes a zone can be asked.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.zone")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToUpper(text), "$GENERATE") && strings.Count(text, "-") > 0 && len(text) > 400 {
			return // bounded, but slow: many make the fuzzer think that it hangs
		}
		z, _, err := zonefile.Parse(strings.NewReader(text), "fuzz.zone", "example.test.")
		if (z == nil) != (err != nil) {
			t.Fatalf("zone %v with error %v", z, err)
		}
		if z != nil && (z.Len() < 2 || z.SOA() == nil) {
			t.Errorf("a zone of %d records", z.Len())
		}
	})
}
