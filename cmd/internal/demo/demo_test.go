package demo_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/musterdns/muster/cmd/internal/demo"
)

func TestSet_Do(t *testing.T) {
	s, err := demo.Start(t.Context(), demo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	in := s.Instances()[0]
	url := "http://" + netip.AddrPortFrom(in.Addresses[0], in.Port).String() + "/healthz"
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func() (int, string) {
		resp, err := client.Get(url)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	steps := []struct {
		action demo.Action
		code   int
		body   string
	}{
		{demo.Revive, 200, "web-1 v1 says hello"},
		{demo.Fail, 500, "told to fail"},
		{demo.Kill, 0, "connection refused"},
		{demo.Kill, 0, "connection refused"},
		{demo.Revive, 200, "web-1"},
	}
	for _, step := range steps {
		if err := s.Do(t.Context(), "web-1", step.action, 0); err != nil {
			t.Fatalf("%s: %v", step.action, err)
		}
		if code, body := get(); code != step.code || !strings.Contains(body, step.body) {
			t.Errorf("after %s: got %d %q, want %d with %q", step.action, code, body, step.code, step.body)
		}
	}
}

func TestSet_Do_names_the_samples_for_an_unknown_one(t *testing.T) {
	s, err := demo.Start(t.Context(), demo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	err = s.Do(t.Context(), "web-9", demo.Kill, 0)
	if !errors.Is(err, demo.ErrUnknown) || !strings.Contains(err.Error(), "web-1") {
		t.Errorf("got %v", err)
	}
	if err := s.Do(t.Context(), "web-1", "explode", 0); err == nil || !strings.Contains(err.Error(), "kill") {
		t.Errorf("got %v, want the list of actions", err)
	}
}

// Two servers on one machine: the second's web-2 had another port than its
// web-1 while the first was between its own, so that `dig | sort` told them in
// another order than README does.
func TestStart_GivesAllSamplesOnePort(t *testing.T) {
	var lc net.ListenConfig
	busy, err := lc.Listen(t.Context(), "tcp", "127.0.1.2:8000")
	if err == nil {
		t.Cleanup(func() { busy.Close() })
	} // else another server's sample has it: just as well
	s, err := demo.Start(t.Context(), demo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	all := s.Instances()
	for _, in := range all {
		if in.Port == 8000 || in.Port != all[0].Port {
			t.Errorf("%s listens on port %d and %s on %d, want one port, and not 8000, which is busy", in.ID, in.Port, all[0].ID, all[0].Port)
		}
	}
}
