package archtest_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// causes are vulnerabilities of other DNS servers, each of a cause that a server such as
// this one could share. A test that names one in its comment shows that this does not.
var causes = []string{
	"CVE-2017-15133", "CVE-2018-17419", "CVE-2019-19794", "CVE-2022-2835", "CVE-2022-2837", "CVE-2023-28454", "CVE-2023-30464", "CVE-2023-50387",
	"CVE-2025-47950", "CVE-2025-58063", "CVE-2026-26017", "CVE-2026-26018", "CVE-2026-32934", "CVE-2026-32936", "CVE-2026-33190",
	"CVE-2026-33489", "CVE-2026-35579", "CVE-2026-86003",
}

var cve = regexp.MustCompile(`CVE-\d{4}-\d+`)

func TestTests_NameEachCause(t *testing.T) {
	s := load(t)
	named := map[string]bool{}
	for _, f := range s.gos {
		if !f.test || strings.HasSuffix(f.path, "archtest/cve_test.go") {
			continue
		}
		for _, group := range f.syntax.Comments {
			for _, c := range cve.FindAllString(group.Text(), -1) {
				named[c] = true
				if !slices.Contains(causes, c) {
					t.Errorf("%s:%d: %s is not in the list of causes", f.path, s.line(group.Pos()), c)
				}
			}
		}
	}
	for _, c := range causes {
		if !named[c] {
			t.Errorf("no test names %s", c)
		}
	}
}

// TestCode_OnlyTheCommandEndsTheProcess: in CVE-2026-26018 a query that could be foretold
// was taken for a loop, which ended the server. Nothing that the network sends may: only
// the command line's code, and that of processes which run once, ends the process.
func TestCode_OnlyTheCommandEndsTheProcess(t *testing.T) {
	s := load(t)
	for f := range s.product {
		if under(f.pkg, "cmd/muster") || under(f.pkg, "integration") {
			continue
		}
		for _, pkg := range []string{"os", "log", "syscall", "runtime"} {
			for call := range selectors(f, pkg) {
				if name := call.Sel.Name; name == "Exit" || name == "Goexit" || strings.HasPrefix(name, "Fatal") {
					t.Errorf("%s:%d: %s.%s: return an error", f.path, s.line(call.Pos()), pkg, name)
				}
			}
		}
	}
}
