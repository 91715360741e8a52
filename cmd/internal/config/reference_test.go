package config_test

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/musterdns/muster/cmd/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got), -update writes it anew:\n%s", path, diff)
	}
}

func load(t *testing.T, o config.Options) *config.Config {
	t.Helper()
	cfg, problems := config.Load(o)
	if len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	return cfg
}

func sameConfig(t *testing.T, want, got *config.Config) {
	t.Helper()
	opts := cmp.Options{cmpopts.IgnoreUnexported(config.Config{}), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}), cmpopts.IgnoreFields(config.Config{}, "File")}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("the configurations differ (-want +got):\n%s", diff)
	}
}

func TestReference(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/muster")
	t.Chdir(t.TempDir())
	ref := config.Reference()
	t.Run("read as it is changes nothing", func(t *testing.T) {
		sameConfig(t, load(t, config.Options{}), load(t, config.Options{Data: []byte(ref)}))
	})
}

func TestReference_golden(t *testing.T) {
	golden(t, "testdata/reference.golden.yaml", config.Reference())
}

func TestSchema(t *testing.T) {
	golden(t, "testdata/schema.golden.json", string(config.Schema()))
	if !json.Valid(config.Schema()) {
		t.Error("the schema is no JSON")
	}
}
