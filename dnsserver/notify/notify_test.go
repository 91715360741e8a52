package notify_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/musterdns/muster/dnsserver/notify"
	"github.com/musterdns/muster/dnsserver/tsig"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
	"github.com/musterdns/muster/zones/zonefile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var transferSecret = strings.Repeat("s", 32)

func TestNotifier_Run(t *testing.T) {
	var tree atomic.Pointer[zones.Tree]
	serial := 0
	serve := func() {
		serial++
		text := fmt.Sprintf("$TTL 60\n@ SOA ns1 hostmaster %d 1 2 3 4\n@ NS ns1\nns1 A 192.0.2.1\n", serial)
		z, _, err := zonefile.Parse(strings.NewReader(text), "zone", "example.test.")
		if err != nil {
			t.Fatal(err)
		}
		made, err := zones.NewTree([]*zones.Zone{z})
		if err != nil {
			t.Fatal(err)
		}
		tree.Store(made)
	}
	serve()
	heard := make(chan string, 16)
	keyName, err := wire.ParseName("key1.")
	if err != nil {
		t.Fatal(err)
	}
	key := tsig.Key{Name: keyName, Algorithm: "hmac-sha256", Secret: []byte(transferSecret)}
	started := make(chan struct{})
	var lost atomic.Bool
	secondary := &dns.Server{
		Addr: "127.0.0.1:0", Net: "udp", NotifyStartedFunc: func() { close(started) },
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
		TsigSecret:    map[string]string{"key1.": base64.StdEncoding.EncodeToString([]byte(transferSecret))},
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
			if m.IsTsig() == nil || w.TsigStatus() != nil {
				heard <- fmt.Sprintf("not signed: %v", w.TsigStatus())
			}
			if lost.CompareAndSwap(false, true) { // on the way
				return
			}
			heard <- fmt.Sprintf("%s %s %d", dns.OpcodeToString[m.Opcode], m.Question[0].Name, m.Answer[0].(*dns.SOA).Serial)
			r := new(dns.Msg)
			r.SetReply(m)
			r.SetTsig("key1.", dns.HmacSHA256, 300, time.Now().Unix())
			_ = w.WriteMsg(r)
		}),
	}
	done := make(chan error, 1)
	go func() { done <- secondary.ListenAndServe() }()
	<-started
	defer func() { _ = secondary.Shutdown(); <-done }()
	to := netip.MustParseAddrPort(secondary.PacketConn.LocalAddr().String())

	n := notify.New(tree.Load, slog.New(slog.DiscardHandler))
	commit, err := n.Prepare([]notify.Target{{Zone: "example.test.", To: to, Key: &key, From: netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	commit()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	before := ""
	for i := range 2 {
		want := fmt.Sprintf("NOTIFY example.test. %d", i+1)
		got := <-heard
		for got == before { // the secondary was held up, and what it had heard came again
			got = <-heard
		}
		if got != want {
			t.Errorf("the secondary hears %q, want %q", got, want)
		}
		before = got
		serve()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if n.Sent() == 0 || n.Failed() != 0 {
		t.Errorf("%d sent, %d failed", n.Sent(), n.Failed())
	}
	if _, err := n.Prepare([]notify.Target{{Zone: "x..y", To: to}}); err == nil {
		t.Error("a zone that is no name is taken")
	}
}
