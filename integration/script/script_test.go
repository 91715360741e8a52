package script_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/program"
	"github.com/musterdns/muster/integration/script"
)

func TestReadme_TranscriptIsTrue(t *testing.T) {
	bin, err := program.Muster(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	steps, err := script.Steps("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var ports [4]string
	for i := range ports {
		p, err := program.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = fmt.Sprint(p)
	}
	s, err := program.Start("muster dev", bin, "dev",
		"--dns-listen=127.0.0.1:"+ports[0], "--admin-listen=127.0.0.1:"+ports[1], "--registry-embedded-listen=127.0.0.1:"+ports[2],
		`--proxy-listeners=[{name: web, listen: "127.0.0.1:`+ports[3]+`", mode: http, service: web}]`)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	// Another server's samples may have the ports of these.
	script.Replace(steps, strings.NewReplacer("5300", ports[0], "8653", ports[1], "2379", ports[2], "8080", ports[3], "8000", "..."))
	dir := t.TempDir()
	if err := os.Symlink(bin, filepath.Join(dir, "muster")); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "MUSTER_ADDR=http://127.0.0.1:"+ports[1])
	for i := range steps {
		if err := steps[i].Run(t.Context(), env); err != nil {
			t.Fatalf("%v\nthe server says:\n%s", err, s.Output())
		}
	}
}

func TestSteps_AreReadAndCompared(t *testing.T) {
	steps, err := script.Steps("testdata/transcript.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 3 {
		t.Fatalf("%d steps, want the 3 of the marked blocks", len(steps))
	}
	for i := range steps[:2] {
		if err := steps[i].Run(t.Context(), os.Environ()); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	err = steps[2].Run(ctx, os.Environ())
	if err == nil || !strings.Contains(err.Error(), "transcript.md:19: $ echo wrong") {
		t.Errorf("a wrong expectation gives error %v, want one with its place", err)
	}
}

func TestSteps_WantACommand(t *testing.T) {
	if steps, err := script.Steps("script_test.go"); err == nil {
		t.Errorf("a file without a transcript has steps %v", steps)
	}
}
