package archtest_test

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

// funcLinesMax is what fits a screen: a function longer than that decides and
// computes at one time.
const funcLinesMax = 70

// fileLinesMax is what one subject needs.
const fileLinesMax = 500

func TestCode_FilesHaveOneSubject(t *testing.T) {
	s := load(t)
	for _, f := range s.gos {
		if f.lines > fileLinesMax && !ast.IsGenerated(f.syntax) {
			t.Errorf("%s has %d lines, at most %d: split it by subject", f.path, f.lines, fileLinesMax)
		}
	}
}

func TestCode_FunctionsFitAScreen(t *testing.T) {
	s := load(t)
	for f := range s.product {
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := s.line(fn.End()) - s.line(fn.Pos()) + 1; n > funcLinesMax {
				t.Errorf("%s:%d: func %s has %d lines, at most %d", f.path, s.line(fn.Pos()), fn.Name.Name, n, funcLinesMax)
			}
		}
	}
}

func TestCode_NothingRunsBeforeMain(t *testing.T) {
	s := load(t)
	for _, f := range s.gos {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s:%d: func init: construct in New, wire in cmd/internal/app", f.path, s.line(fn.Pos()))
			}
		}
	}
}

func TestCode_PackagesSayWhatTheyAreFor(t *testing.T) {
	s := load(t)
	said := map[string]string{} // package to the file that says it
	for f := range s.product {
		if _, ok := said[f.pkg]; !ok {
			said[f.pkg] = ""
		}
		doc := f.syntax.Doc.Text()
		if doc == "" {
			continue
		}
		if first := said[f.pkg]; first != "" {
			t.Errorf("package %s has two comments, in %s and %s", f.pkg, first, f.path)
		}
		said[f.pkg] = f.path
		name := f.syntax.Name.Name
		want := "Package " + name + " "
		if name == "main" {
			want = "Command " + path.Base(f.pkg) + " "
		}
		if !strings.HasPrefix(doc, want) {
			t.Errorf("%s: the package comment must begin with %q", f.path, want)
		}
	}
	for pkg, file := range said {
		if file == "" {
			t.Errorf("package %s has no comment", pkg)
		}
	}
}

// emptyNames say nothing of what is in a package.
var emptyNames = []string{"base", "common", "helper", "helpers", "lib", "manager", "misc", "models", "shared", "types", "util", "utils"}

func TestCode_PackagesAreNouns(t *testing.T) {
	s := load(t)
	for _, f := range s.gos {
		if slices.Contains(emptyNames, f.syntax.Name.Name) {
			t.Errorf("%s: package name %s says nothing of what is in it", f.path, f.syntax.Name.Name)
		}
	}
}

// clock are the functions of package time that read or wait for the clock.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTicker", "NewTimer", "Sleep", "Tick"}

// clockless are the packages that get time and randomness as arguments, and
// what is below them: the query path, which makes no system call but to
// receive and send, and selection, which must give the same for the same.
var clockless = []string{"lb", "zones", "dnsserver/wire", "dnsserver/cookie", "dnsserver/tsig", "dnsserver/authority"}

// mayTellTime are packages below a clockless one that are not on its path.
var mayTellTime = []string{"lb/pool", "lb/dispatch", "lb/l4", "lb/l7", "lb/kernel"}

// offPath are files below a clockless package that are not on its path.
var offPath = exemptions{
	"dnsserver/authority/ask.go":      "the caller's side of a question that no client sent",
	"zones/sign/key.go":               "keys are made once, and signatures beside the path, with what must not be guessed",
	"dnsserver/authority/upstream.go": "forwarding is deferred, and its ids and ports must not be guessed",
}

func TestCode_QueryPathHasNoClockAndNoRandomness(t *testing.T) {
	s := load(t)
	needed := used{}
	report := func(f *goFile, format string, args ...any) {
		t.Helper()
		if _, ok := offPath[f.path]; ok {
			needed[f.path] = true
			return
		}
		t.Errorf(format, args...)
	}
	for f := range s.product {
		in := func(dir string) bool { return under(f.pkg, dir) }
		if !slices.ContainsFunc(clockless, in) || slices.ContainsFunc(mayTellTime, in) {
			continue
		}
		for _, i := range f.imports {
			if i == "math/rand" || i == "math/rand/v2" || i == "crypto/rand" {
				report(f, "%s imports %s: the caller brings the random word", f.path, i)
			}
		}
		for call := range selectors(f, "time") {
			if slices.Contains(clock, call.Sel.Name) {
				report(f, "%s:%d: time.%s: the caller brings the clock", f.path, s.line(call.Pos()), call.Sel.Name)
			}
		}
	}
	offPath.check(t, needed)
}
