package main

import "testing"

func TestParseBusy_LeavesOutWhatIsIdle(t *testing.T) {
	got, err := parseBusy("cpu  100 20 30 4000 500 6 7 900 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
	if want := (100 + 20 + 30 + 6 + 7) * clockTick; err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	for _, bad := range []string{"", "intr 1 2 3 4 5 6 7\n", "cpu 1 2 3\n", "cpu a b c d e f g\n"} {
		if _, err := parseBusy(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestParseInterface_ReadsBothDirections(t *testing.T) {
	const dev = "Inter-|   Receive\n face |bytes packets\n    lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n  eth0: 1234 5 0 0 0 0 0 0 5678 9 0 0 0 0 0 0\n"
	received, sent, err := parseInterface(dev, "eth0")
	if err != nil || received != 1234 || sent != 5678 {
		t.Errorf("%d, %d, %v; want 1234, 5678", received, sent, err)
	}
	for _, bad := range []string{"", "eth0: 1 2\n", "eth0: a 5 0 0 0 0 0 0 5678 9\n"} {
		if _, _, err := parseInterface(bad, "eth0"); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
