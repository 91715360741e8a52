package resolver_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// vizMark is how dnsviz print marks what it has validated, [.], or why not.
var vizMark = regexp.MustCompile(`\[[^\]\s]{1,2}\]`)

// TestDNSViz_FindsNothing: dnsviz asks for all that a zone has of itself, over UDP and TCP,
// with odd options and sizes, and for the names given. It warns of nothing and marks every
// answer as secure. (Its grok says the same, but Debian 12's does not start.)
func TestDNSViz_FindsNothing(t *testing.T) {
	viz := find(t, "dnsviz", "dnsviz")
	host, port, anchors := signedServer(t)
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), viz, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("dnsviz %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	probed := func(zone string) string { return filepath.Join(dir, zone+".json") }
	trusted := func(zone string) string { return filepath.Join(dir, zone+".key") }
	for zone, key := range anchors {
		write(t, trusted(zone), key+"\n")
		server := fmt.Sprintf("%s+:ns1.%s=%s:%s", zone, zone, host, port)
		run(append([]string{"probe", "-4", "-A", "-a", zone, "-x", server, "-o", probed(zone)}, namesOf(zone)...)...)
		printed := run("print", "-t", trusted(zone), "-r", probed(zone))
		for line := range strings.Lines(printed) {
			for _, mark := range vizMark.FindAllString(line, -1) {
				if mark != "[.]" {
					t.Errorf("%s: %s", zone, line)
				}
			}
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "E:") || strings.HasPrefix(line, "W:") {
				t.Errorf("%s: %s", zone, line)
			}
		}
		for _, name := range namesOf(zone) {
			if !strings.Contains("\n"+printed, "\n"+name+"\n") && !strings.HasPrefix(printed, name+" [.]") {
				t.Errorf("%s is not in what dnsviz has seen:\n%s", name, printed)
			}
		}
	}
	// It would say so.
	if printed := run("print", "-t", trusted("live.test"), "-r", probed("still.test")); !strings.Contains(printed, "[-]") {
		t.Errorf("with another zone's key dnsviz says\n%s", printed)
	}
}

// namesOf are the names that are asked about in a zone, the zone's first, but for those
// that it delegates to servers that do not exist.
func namesOf(zone string) []string {
	names := []string{zone}
	seen := map[string]bool{zone: true}
	for _, q := range signedQuestions {
		if q.zone == zone && !seen[q.name] && q.typ != "DS" {
			seen[q.name] = true
			names = append(names, q.name)
		}
	}
	return names
}

// TestDNSViz_FindsNothingFromTheRoot has it go down from the root, whose key alone it
// trusts, to zones of two servers: delegations with DS records and without, names' chains,
// wildcards, names that are there for those below them, and none.
func TestDNSViz_FindsNothingFromTheRoot(t *testing.T) {
	inWorld(t, 4*time.Minute, func(w *world) {
		viz := find(t, "dnsviz", "dnsviz")
		for _, zone := range []string{liveSigned, livePlain} {
			if err := w.register(t.Context(), zone, "web", "one", "10.9.0.1"); err != nil {
				t.Fatal(err)
			}
		}
		probed, trusted := w.lab.Path("probed.json"), w.lab.Path("root.key")
		key, _, _ := strings.Cut(w.keys(".", "list"), ";")
		write(t, trusted, key+"\n")
		secure := []string{
			"live.city", "web.live.city", "one.web.live.city", "nope.live.city", "_tcp.web.live.city", "_http._tcp.web.live.city", "v2._tag.web.live.city", "k._hash.web.live.city",
			"still.city", "www.still.city", "chain.still.city", "x.wild.still.city", "b.ent.still.city", "a.b.ent.still.city", "nope.still.city",
		}
		insecure := []string{"plain.city", "web.plain.city", "flat.city", "www.flat.city", "x.wild.flat.city"}
		w.command(slices.Concat([]string{viz, "probe", "-A", "-a", ".", "-x", ".+:a.root=" + worldRoots[0], "-o", probed}, secure, insecure)...)
		name, seen := "", map[string]bool{}
		printed := w.command(viz, "print", "-t", trusted, "-r", probed)
		for line := range strings.Lines(printed) {
			if !strings.HasPrefix(line, " ") {
				name, _, _ = strings.Cut(strings.TrimSpace(line), " ")
				seen[name] = true
			}
			unsigned := strings.HasSuffix(name, "plain.city") || strings.HasSuffix(name, "flat.city")
			for _, mark := range vizMark.FindAllString(line, -1) {
				if mark != "[.]" && !(unsigned && mark == "[-]") { // that it is not is proven by the parent
					t.Errorf("%s: %s", name, line)
				}
			}
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "E:") || strings.HasPrefix(line, "W:") {
				t.Errorf("%s: %s", name, line)
			}
		}
		for _, n := range slices.Concat(secure, insecure) {
			if !seen[n] {
				t.Errorf("%s is not in what dnsviz has seen:\n%s", n, printed)
			}
		}
	})
}
