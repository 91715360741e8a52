package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/musterdns/muster/registry"
)

// sample is a snapshot with something in every field.
func sample(t testing.TB, instances int) registry.Snapshot {
	t.Helper()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	full, err := registry.DecodeInstance("web", "a", []byte(fullInstance))
	if err != nil {
		t.Fatal(err)
	}
	full.Incarnation, full.Revision, full.Leased, full.Meta = 4, 5, true, map[string]string{"k": "v", "a": ""}
	share, wait := 0.25, time.Minute
	page := registry.Batch{Revision: 77, AsOf: at, Reset: true, Snapshot: true, Instances: []registry.Instance{full}}
	page.Services = []registry.Service{{
		Name: "web", Policy: "hash", TTL: time.Second, MaxAnswers: registry.MaxAnswersAuto, HashOn: "name", Checks: []registry.Check{}, Fail: "tier",
		PanicThreshold: &share, SlowStart: &wait, Spill: "proportional", ProxyPolicy: "peak-ewma", HashBound: 1.25, Meta: map[string]string{"k": "v"}, Revision: 6,
		VIP: []netip.Addr{netip.MustParseAddr("10.0.0.100")}, Failover: []string{"web-spare", "web.svc.dc2."},
	}, {Name: "bare"}, {Name: "none", VIP: []netip.Addr{}, Failover: []string{}}}
	page.Admin = []registry.Admin{{Service: "web", Instance: "*", State: registry.AdminDown, Reason: "r", By: "b", Since: at, Until: at, Revision: 7}}
	page.Routes = []registry.Route{{Name: "api", Hosts: []string{"*.example.com"}, Path: "/api", Service: "web", Revision: 8}}
	page.Notes = []registry.Note{{Key: registry.Key{Kind: registry.KindService, Service: "prod/text"}, Value: []byte(`{"text":"x"}`)}}
	for i := len(page.Instances); i < instances; i++ {
		page.Instances = append(page.Instances, registry.Instance{
			Service: fmt.Sprintf("s%d", i/10), ID: fmt.Sprintf("i%d", i), Weight: 1, Port: 80, Region: "eu", Zone: "eu-1a", Tags: []string{"v2"},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}, Incarnation: int64(i), Revision: int64(i),
		})
	}
	return registry.Snapshot{
		Stores:  []string{"https://etcd-1:2379", "https://etcd-2:2379"},
		Zones:   map[string][]registry.Batch{"svc.internal.": {page}, "empty.": {{Reset: true, Snapshot: true, Revision: 1}}},
		Serials: map[string]uint32{"svc.internal.": 1<<32 - 1},
		Health:  map[string][]registry.HealthMark{"svc.internal.": {{Service: "web", Instance: "a", State: 2}}},
	}
}

func TestSnapshot(t *testing.T) {
	t.Run("what is written is read", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "snapshot")
		want := sample(t, 5)
		begun := time.Now()
		if err := registry.WriteSnapshot(path, want); err != nil {
			t.Fatal(err)
		}
		got, err := registry.ReadSnapshot(path)
		if err != nil {
			t.Fatal(err)
		}
		if got.Written.Before(begun.Truncate(0)) {
			t.Errorf("written %s", got.Written)
		}
		if checks := got.Zones["svc.internal."][0].Services[0].Checks; checks == nil {
			t.Error("a service said to have no checks has none said")
		}
		if diff := cmp.Diff(want, got, compare(), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(registry.Snapshot{}, "Written")); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	t.Run("a large state comes in pages", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "snapshot")
		const n = 2*registry.PageMax + 1
		if err := registry.WriteSnapshot(path, sample(t, n)); err != nil {
			t.Fatal(err)
		}
		got, err := registry.ReadSnapshot(path)
		if err != nil {
			t.Fatal(err)
		}
		pages, sum := got.Zones["svc.internal."], 0
		for i, p := range pages {
			sum += len(p.Instances)
			if p.Reset != (i == 0) || p.More != (i < len(pages)-1) || len(p.Instances) > registry.PageMax || p.Revision != 77 {
				t.Errorf("page %d: reset %v, more %v, %d instances", i, p.Reset, p.More, len(p.Instances))
			}
		}
		if sum != n || len(pages) != 3 {
			t.Errorf("%d instances in %d pages, want %d in 3", sum, len(pages), n)
		}
	})
	t.Run("no file is fs.ErrNotExist", func(t *testing.T) {
		if _, err := registry.ReadSnapshot(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a file that was cut or changed anywhere is refused", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "snapshot")
		if err := registry.WriteSnapshot(path, sample(t, 2)); err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		refused := func(what string, raw []byte) {
			t.Helper()
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := registry.ReadSnapshot(path); !errors.Is(err, registry.ErrSnapshot) {
				t.Errorf("%s: error %v, want ErrSnapshot", what, err)
			}
		}
		for i := range whole {
			changed := bytes.Clone(whole)
			changed[i] ^= 0x10
			refused(fmt.Sprintf("byte %d changed", i), changed)
			refused(fmt.Sprintf("cut to %d bytes", i), whole[:i])
		}
		refused("longer", append(bytes.Clone(whole), 0))
	})
	t.Run("a disk that is full leaves the old file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "snapshot")
		if err := registry.WriteSnapshot(path, sample(t, 2)); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(path)
		// /dev/full refuses every write as a full disk does.
		if err := os.Symlink("/dev/full", path+".tmp"); err != nil {
			t.Fatal(err)
		}
		if err := registry.WriteSnapshot(path, sample(t, 1000)); err == nil {
			t.Error("a full disk was not noticed")
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the old file was touched: %v", err)
		}
		if err := registry.WriteSnapshot(path, sample(t, 1000)); err != nil {
			t.Errorf("with the disk free again: %v", err)
		}
	})
	t.Run("a directory that is not there is an error", func(t *testing.T) {
		if err := registry.WriteSnapshot(filepath.Join(t.TempDir(), "none", "snapshot"), registry.Snapshot{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}

// BenchmarkSnapshot writes and reads 100,000 instances: a part of the second in
// which a restart without etcd answers.
func BenchmarkSnapshot(b *testing.B) {
	path := filepath.Join(b.TempDir(), "snapshot")
	s := sample(b, 100_000)
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := registry.WriteSnapshot(path, s); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := registry.ReadSnapshot(path); err != nil {
				b.Fatal(err)
			}
		}
	})
}
