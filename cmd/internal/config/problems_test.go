package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/musterdns/muster/cmd/internal/config"
)

// TestLoad_problems reads testdata/problems: in each file the comments that
// begin with "# want " are the problems that it has, in order.
func TestLoad_problems(t *testing.T) {
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			quiet(t)
			var want, got []string
			for line := range strings.Lines(string(data)) {
				if text, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "# want "); ok {
					want = append(want, text)
				}
			}
			cfg, problems := config.Load(config.Options{File: "muster.yaml", Data: data})
			for _, p := range problems {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if (cfg == nil) != (problems.Err() != nil) {
				t.Errorf("a configuration is there: %t, an error: %v", cfg != nil, problems.Err())
			}
		})
	}
}

func TestLoad_problems_of_the_environment(t *testing.T) {
	for _, tc := range []struct{ name, value, want string }{
		{"MUSTER_LOG_LEVEL", "inof", `MUSTER_LOG_LEVEL: log.level: "inof": must be one of debug, info, warn, error: did you mean "info"?`},
		{"MUSTER_DNS_WORKERS", "-1", `MUSTER_DNS_WORKERS: dns.workers: "-1": must be a whole number, 0 to 1024`},
		{"MUSTER_FORWARD_UPSTREAMS", "9.9.9.9,nine", `MUSTER_FORWARD_UPSTREAMS: forward.upstreams[1]: "nine": must be an IP address and port, such as 9.9.9.9 or 9.9.9.9:53`},
		{"MUSTER_ZONES", "[", `MUSTER_ZONES: zones: is not YAML: something else stands where a value is expected: put quotes around what begins with [ or a colon and is no list, as "[::1]:53"`},
		{"MUSTER_ZONES", "[{name: a.example, sauce: muster}]", `MUSTER_ZONES:1:20: zones[0].sauce: unknown key: did you mean "source"?`},
		{"MUSTER_ADMIN_LISTN", "x", `MUSTER_ADMIN_LISTN: warning: no such setting: did you mean "MUSTER_ADMIN_LISTEN"?`},
	} {
		t.Run(tc.name+"="+tc.value, func(t *testing.T) {
			quiet(t)
			t.Setenv(tc.name, tc.value)
			_, problems := config.Load(config.Options{})
			if len(problems) == 0 || problems[0].String() != tc.want {
				t.Errorf("got  %v\nwant %s", problems, tc.want)
			}
		})
	}
}

func TestLoad_names_a_file_that_cannot_be_read(t *testing.T) {
	quiet(t)
	_, problems := config.Load(config.Options{File: "absent.yaml"})
	if err := problems.Err(); err == nil || err.Error() != "absent.yaml: cannot be read: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(config.Reference()))
	f.Add([]byte("a: &a [*a]\nzones: *a\n"))
	f.Setenv("STATE_DIRECTORY", "/var/lib/muster")
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, problems := config.Load(config.Options{File: "f", Data: data})
		if (cfg == nil) != (problems.Err() != nil) {
			t.Fatalf("a configuration is there: %t, an error: %v", cfg != nil, problems.Err())
		}
		for _, p := range problems {
			if p.Origin.Source != "f" || p.Origin.Line < 1 || p.Origin.Col < 1 {
				t.Errorf("%s: has no position", p)
			}
			if strings.ContainsAny(p.String(), "\n\r\x1b\x00") {
				t.Errorf("%q: is more than one printable line", p.String())
			}
		}
		if cfg == nil {
			return
		}
		again, problems := config.Load(config.Options{File: "f", Data: []byte(cfg.View())})
		if problems.Err() != nil {
			t.Fatalf("the view cannot be read back: %v\n%s", problems.Err(), cfg.View())
		}
		sameConfig(t, cfg, again)
	})
}
