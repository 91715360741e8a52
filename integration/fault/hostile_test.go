package fault_test

import (
	"strings"
	"testing"

	"github.com/musterdns/muster/integration/fault"
)

func TestHostile_ValuesLeaveTheGoodOnesServed(t *testing.T) {
	t.Parallel()
	r, err := fault.Hostile(t.Context(), newLab(t), 300, 1500)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d problems, %d log lines, the longest of %d octets, %d findings in %d octets, RSS %+d MiB to %d MiB",
		r.Problems, r.LogLines, r.LongestLine, len(r.Findings), r.FindingsSize, r.RSSMore>>20, r.RSS>>20)
	if r.Served != r.Good {
		t.Errorf("%d of %d good services are answered right", r.Served, r.Good)
	}
	if r.LogLines == 0 || r.LogLines > r.Bad || len(r.Forged) > 0 {
		t.Errorf("%d lines of the log are about %d bad keys, want one each at most; forged: %q", r.LogLines, r.Bad, r.Forged)
	}
	if r.LongestLine > 4096 {
		t.Errorf("a line of the log has %d octets, want at most 4096, however long the value is", r.LongestLine)
	}
	if r.RSSMore > 50<<20 {
		t.Errorf("the server has grown by %d MiB, want at most 50", r.RSSMore>>20)
	}
	if r.Panics != 0 {
		t.Errorf("%d panics", r.Panics)
	}
	if r.Problems < r.Bad/2 || len(r.Findings) == 0 || r.FindingsSize > 4<<20 {
		t.Errorf("%d problems and %d findings in %d octets, want most of %d keys, and a bound on what doctor says", r.Problems, len(r.Findings), r.FindingsSize, r.Bad)
	}
	for _, f := range r.Findings {
		if strings.HasPrefix(f.Subject, `"`+fault.Keys) && (f.Problem == "" || f.Mend == "") {
			t.Errorf("doctor's finding lacks a reason or a mend: %+v", f)
		}
		if strings.ContainsAny(f.Subject+f.Problem+f.Mend, "\n\r\x00\x1b\u2028") {
			t.Errorf("doctor's finding has control characters in it: %+q", f)
		}
	}
}
