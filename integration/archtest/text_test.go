package archtest_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// topLevel is all that may stand in the top directory, dotfiles aside.
var topLevel = []string{
	"cmd", "dnsserver", "registry", "lb", "health", "zones", "integration",
	"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CHANGELOG.md",
}

// tracked lists the files that git has or would take. Where there is no git, as
// in an unpacked archive, it is all files.
func tracked(t *testing.T, s *tree) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		return s.files
	}
	return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
}

func TestText_TopLevelIsFixed(t *testing.T) {
	for _, file := range tracked(t, load(t)) {
		first, _, _ := strings.Cut(file, "/")
		if !strings.HasPrefix(first, ".") && !slices.Contains(topLevel, first) {
			t.Errorf("%s: the top level holds %v and dotfiles, nothing else", file, topLevel)
		}
	}
}

// binaryExts are files that are no text.
var binaryExts = []string{".gz", ".zst", ".png", ".ico", ".woff2", ".pcap", ".bin", ".o"}

// texts calls f with each tracked text file's content.
func texts(t *testing.T, f func(file string, text []byte)) {
	t.Helper()
	for _, file := range tracked(t, load(t)) {
		if slices.Contains(binaryExts, path.Ext(file)) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(file)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and git does not know yet
		}
		if err != nil {
			t.Fatal(err)
		}
		f(file, text)
	}
}

// machinePath is a path that exists on one machine only. Tests use t.TempDir,
// examples use /etc and /var. Written so that it does not match itself.
var machinePath = regexp.MustCompile(`/(wor[k]|far[m]|roo[t]|tm[p]|home/[a-z]+|User[s])/[A-Za-z.]`)

func TestText_NamesNoPathOfOneMachine(t *testing.T) {
	texts(t, func(file string, text []byte) {
		if path.Ext(file) == ".sum" {
			return
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if m := machinePath.Find(line); m != nil {
				t.Errorf("%s:%d: %q is a path of one machine", file, i+1, m)
			}
		}
	})
}

// lineMax is how wide a line of what operators read may be, in columns.
const lineMax = 140

func TestText_DocumentsFitAScreen(t *testing.T) {
	for _, file := range []string{"README.md", "CHANGELOG.md"} {
		text, err := os.ReadFile(filepath.Join(top, file))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if len(line) > lineMax {
				t.Errorf("%s:%d: %d columns, want %d at most", file, i+1, len(line), lineMax)
			}
		}
	}
}

// notASCII are files whose subject is what lies outside ASCII.
var notASCII = exemptions{
	"dnsserver/wire/name_test.go": "names of any octets",
}

func TestText_IsASCII(t *testing.T) {
	needed := used{}
	texts(t, func(file string, text []byte) {
		if strings.Contains(file, "testdata/") {
			return // malformed input is what it is
		}
		i := bytes.IndexFunc(text, func(r rune) bool { return r > 126 })
		if i < 0 {
			return
		}
		if _, ok := notASCII[file]; ok {
			needed[file] = true
			return
		}
		t.Errorf("%s:%d: a character outside ASCII", file, 1+bytes.Count(text[:i], []byte("\n")))
	})
	notASCII.check(t, needed)
}

// unfinished marks work that was left; it needs an issue that says what.
var (
	unfinished = regexp.MustCompile(`\b(TO[D]O|FIX[M]E|XX[X])\b`)
	withIssue  = regexp.MustCompile(`\bTO[D]O\(#[0-9]+\)`)
)

func TestText_UnfinishedWorkNamesItsIssue(t *testing.T) {
	s := load(t)
	for _, f := range s.gos {
		for _, group := range f.syntax.Comments {
			for _, c := range group.List {
				if unfinished.MatchString(c.Text) && !withIssue.MatchString(c.Text) {
					t.Errorf("%s:%d: %q names no issue", f.path, s.line(c.Pos()), c.Text)
				}
			}
		}
	}
}
