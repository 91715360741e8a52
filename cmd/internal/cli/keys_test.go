package cli_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/cmd/internal/cli"
)

// TestKeysRetire: the old key ends when the parent has a DS record of the new one alone, by
// a digest that validators go by, and not when it cannot be known what the parent has.
func TestKeysRetire(t *testing.T) {
	var answer atomic.Pointer[dns.Msg] // nil: none is given
	answer.Store(new(dns.Msg))
	tcp, udp, err := onePort()
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if a := answer.Load(); a != nil {
			m := a.Copy()
			m.SetRcode(q, a.Rcode)
			_ = w.WriteMsg(m) // the client sees that it does not come
		}
	})
	for _, s := range []*dns.Server{{Listener: tcp, Handler: handler}, {PacketConn: udp, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done := make(chan struct{})
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	dir, began := filepath.Join(t.TempDir(), "keys"), time.Now()
	muster := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := cli.Run(t.Context(), cli.App{}, append(args, "--zone", "example.test", "--dir", dir), strings.NewReader(""), &out, &out)
		return code, out.String()
	}
	var keys []*dns.DNSKEY
	for _, verb := range []string{"generate", "roll"} {
		if code, out := muster("keys", verb); code != 0 {
			t.Fatalf("keys %s: %d, %s", verb, code, out)
		}
		_, list := muster("keys", "list")
		for line := range strings.Lines(list) {
			rr, err := dns.NewRR(line)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if key := rr.(*dns.DNSKEY); len(keys) == 0 || key.PublicKey != keys[0].PublicKey {
				keys = append(keys, key)
			}
		}
	}
	older, newer := keys[0], keys[1]
	set := func(of ...*dns.DS) *dns.Msg {
		m := new(dns.Msg)
		for _, ds := range of {
			m.Answer = append(m.Answer, ds)
		}
		return m
	}
	retire := func(timeout string) (int, string) {
		return muster("keys", "retire", "--server", udp.LocalAddr().String(), "--timeout", timeout, "--ds-ttl", "1m")
	}
	for _, tt := range []struct {
		what   string
		answer *dns.Msg
		want   string
	}{
		{"SERVFAIL", &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeServerFailure}}, "answers SERVFAIL"},
		{"NXDOMAIN", &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}}, "answers NXDOMAIN"},
		{"REFUSED", &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeRefused}}, "answers REFUSED"},
		{"no answer", nil, "no response in time"},
		{"none", set(), "has 0 DS records"},
		{"the old one", set(older.ToDS(dns.SHA256)), "has 1 DS records and not this one"},
		{"the new one by SHA-1", set(newer.ToDS(dns.SHA1)), "by SHA-1 alone"},
		{"both", set(newer.ToDS(dns.SHA256), older.ToDS(dns.SHA384)), "still has the DS record of an old key"},
		{"the old one by SHA-1", set(newer.ToDS(dns.SHA384), older.ToDS(dns.SHA1)), "still has the DS record of an old key"},
	} {
		answer.Store(tt.answer)
		timeout := "30s"
		if tt.answer == nil {
			timeout = "50ms"
		}
		if code, out := retire(timeout); code != 1 || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %d, %q; want 1 and %q", tt.what, code, out, tt.want)
		}
	}
	answer.Store(set(newer.ToDS(dns.SHA384), newer.ToDS(dns.SHA1)))
	code, out := retire("30s")
	of, at, _ := strings.Cut(strings.TrimSpace(out), " ends ")
	end, err := time.Parse(time.RFC3339, at)
	if code != 0 || err != nil || of != fmt.Sprintf("key %d", older.KeyTag()) {
		t.Fatalf("the new one by SHA-384: %d, %q, %v", code, out, err)
	}
	// Resolvers have the zone's DNSKEY set for an hour, and do not know the new key before.
	if first := began.Add(time.Hour).Truncate(time.Second); end.Before(first) {
		t.Errorf("the old key ends at %s, before %s", end, first)
	}
}

// TestKeysGenerate_many: a zone has four keys at most, each with a tag of its own (KeyTrap,
// CVE-2023-50387).
func TestKeysGenerate_many(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	tags := map[uint16]bool{}
	for i := range 5 {
		var out, told bytes.Buffer
		code := cli.Run(t.Context(), cli.App{}, []string{"keys", "generate", "--zone", "example.test", "--dir", dir}, strings.NewReader(""), &out, &told)
		if i == 4 {
			if code == 0 || !strings.Contains(told.String(), "has 4 keys") {
				t.Errorf("the fifth key: %d, %s", code, told.String())
			}
			break
		}
		rr, err := dns.NewRR(out.String())
		if err != nil || code != 0 {
			t.Fatalf("%d, %q: %v, %s", code, out.String(), err, told.String())
		}
		tags[rr.(*dns.DS).KeyTag] = true
	}
	if len(tags) != 4 {
		t.Errorf("tags %v", tags)
	}
}
