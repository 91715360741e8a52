package sign_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/zones/sign"
)

func TestKey_DoesWhatItsTimesSay(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	before, after := now.Add(-time.Hour), now.Add(time.Hour)
	for what, tt := range map[string]struct {
		times                    sign.Times
		published, signs, synced bool
	}{
		"none":                        {sign.Times{}, true, true, false},
		"made an hour ago":            {sign.Times{Created: before}, true, true, false},
		"not published yet":           {sign.Times{Publish: after}, false, false, false},
		"not active yet":              {sign.Times{Activate: after}, true, false, false},
		"inactive":                    {sign.Times{Inactive: before}, true, false, false},
		"deleted":                     {sign.Times{Delete: before, SyncPublish: before}, false, false, false},
		"to be deleted":               {sign.Times{Inactive: after, Delete: after}, true, true, false},
		"its DS is asked for":         {sign.Times{SyncPublish: now}, true, true, true},
		"its DS will be asked for":    {sign.Times{SyncPublish: after}, true, true, false},
		"its DS is asked for no more": {sign.Times{SyncPublish: before, SyncStop: now}, true, true, false},
	} {
		k := generate(t, "example.test.", sign.Ed25519)
		k.Times = tt.times
		if k.Published(now) != tt.published || k.Signs(now) != tt.signs || k.Synced(now) != tt.synced {
			t.Errorf("%s: published %t, signs %t, synced %t", what, k.Published(now), k.Signs(now), k.Synced(now))
		}
	}
}

func TestKey_SetTimes(t *testing.T) {
	dir, at := t.TempDir(), time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	k := generate(t, "example.test.", sign.ECDSAP256SHA256)
	k.Times.Created = at
	if err := k.Write(dir); err != nil {
		t.Fatal(err)
	}
	want := sign.Times{Created: at, SyncPublish: at.Add(time.Hour), SyncStop: at.Add(2 * time.Hour), Inactive: at.Add(3 * time.Hour), Delete: at.Add(4 * time.Hour)}
	if err := os.Chmod(k.File, 0o640); err != nil { // the server's group reads it
		t.Fatal(err)
	}
	if err := k.SetTimes(want); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(k.File); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v; want the mode that it had", info.Mode(), err)
	}
	keys, err := sign.ReadDir(dir, name(t, "example.test."))
	if err != nil || len(keys) != 1 || keys[0].Times != want || keys[0].Tag != k.Tag {
		t.Fatalf("%v, %v; want the key with %v", keys, err, want)
	}
	if next := sign.Next(keys, at.Add(90*time.Minute)); !next.Equal(at.Add(2 * time.Hour)) {
		t.Errorf("next is %s", next)
	}
	if next := sign.Next(keys, at.Add(5*time.Hour)); !next.IsZero() {
		t.Errorf("after all there is %s", next)
	}
}

// The signatures of a day are the same wherever and whenever they are made, and the
// serial number of a zone with secondaries grows with what is new.
func TestZone_IsTheSameAllDay(t *testing.T) {
	keys := []*sign.Key{generate(t, "example.test.", sign.ECDSAP256SHA256), generate(t, "example.test.", sign.Ed25519)}
	morning := time.Date(2026, 11, 26, 3, 0, 0, 0, time.UTC)
	text := func(rrs []dns.RR) string {
		var lines []string
		for _, rr := range rrs {
			lines = append(lines, rr.String())
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	first := text(signedBy(t, keys, morning, true))
	if again := text(signedBy(t, keys, morning.Add(20*time.Hour), true)); again != first {
		t.Error("it is another in the evening")
	}
	serial := func(now time.Time, raise bool) uint32 {
		for _, rr := range signedBy(t, keys, now, raise) {
			if soa, ok := rr.(*dns.SOA); ok {
				return soa.Serial
			}
		}
		t.Fatal("no SOA")
		return 0
	}
	if a, b := serial(morning, false), serial(morning.Add(48*time.Hour), false); a != b {
		t.Errorf("a zone without secondaries has serial numbers %d and %d", a, b)
	}
	today, tomorrow := serial(morning, true), serial(morning.Add(24*time.Hour), true)
	keys[0].Times.SyncPublish = morning.Add(time.Hour)
	changed := serial(morning.Add(2*time.Hour), true)
	if !(today < changed && changed < tomorrow) {
		t.Errorf("today %d, after a key's change %d, tomorrow %d", today, changed, tomorrow)
	}
}
