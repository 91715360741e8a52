package zonefile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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
	z, warnings, err := zonefile.Parse(strings.NewReader(head+"wallet 60 IN WALLET \"a b\" c\nwallet TXT t\ncla\tcla x\nresinfo RESINFO qnamemin\n"), "x.zone", "example.test.")
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
