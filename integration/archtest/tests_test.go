package archtest_test

import (
	"slices"
	"strings"
	"testing"
)

// sleepers are test files that wait by the clock, each with the reason why
// neither a bubble of testing/synctest nor a channel can serve.
var sleepers = exemptions{}

func TestTests_DoNotSleep(t *testing.T) {
	s := load(t)
	needed := used{}
	// In a bubble of testing/synctest sleeping takes no time. A file of a package
	// that has bubbles may hold what runs in those of another.
	bubbles := map[string]bool{}
	for _, f := range s.gos {
		bubbles[f.pkg] = bubbles[f.pkg] || f.test && slices.Contains(f.imports, "testing/synctest")
	}
	for _, f := range s.gos {
		if !f.test || bubbles[f.pkg] {
			continue
		}
		for sel := range selectors(f, "time") {
			if sel.Sel.Name != "Sleep" {
				continue
			}
			if _, ok := sleepers[f.path]; ok {
				needed[f.path] = true
				continue
			}
			t.Errorf("%s:%d: time.Sleep: use testing/synctest, or wait for what is to happen", f.path, s.line(sel.Pos()))
		}
	}
	sleepers.check(t, needed)
}

// skippers are test files with tests that do not always run.
var skippers = exemptions{
	"integration/kernel/main_test.go": "without root there are no data planes to test; in CI it fails instead",
}

func TestTests_DoNotSkip(t *testing.T) {
	s := load(t)
	needed := used{}
	for _, f := range s.gos {
		if !f.test {
			continue
		}
		for _, receiver := range []string{"t", "b", "f", "tb"} {
			for sel := range methods(f, receiver) {
				if !strings.HasPrefix(sel.Sel.Name, "Skip") {
					continue
				}
				if _, ok := skippers[f.path]; ok {
					needed[f.path] = true
					continue
				}
				t.Errorf("%s:%d: %s.%s hides a gap: fail, and say what to install", f.path, s.line(sel.Pos()), receiver, sel.Sel.Name)
			}
		}
	}
	skippers.check(t, needed)
}

// inside are test files that belong to the package that they test, because
// what they test cannot be seen from outside.
var inside = exemptions{}

func TestTests_AreExternal(t *testing.T) {
	s := load(t)
	needed := used{}
	for _, f := range s.gos {
		if !f.test || strings.HasSuffix(f.syntax.Name.Name, "_test") || f.syntax.Name.Name == "main" {
			continue
		}
		// The usual bridge: it only names what is unexported, and has no tests.
		if strings.HasSuffix(f.path, "/export_test.go") {
			continue
		}
		if _, ok := inside[f.path]; ok {
			needed[f.path] = true
			continue
		}
		t.Errorf("%s: package %s; tests are external, package %s_test", f.path, f.syntax.Name.Name, f.syntax.Name.Name)
	}
	inside.check(t, needed)
}
