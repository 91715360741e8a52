package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestParseStat_TakesAnyNameOfAProgram(t *testing.T) {
	cases := []struct {
		text        string
		pid, parent int
		ok          bool
	}{
		{"17 (etcd) S 3 17 17 0", 17, 3, true},
		{"18 (a) S 9 (b) R 4 18 18 0", 18, 4, true},
		{"19 () Z 1", 19, 1, true},
		{"20 etcd S 3", 0, 0, false},
		{"21 (etcd) S", 0, 0, false},
		{"x (etcd) S 3", 0, 0, false},
	}
	for _, c := range cases {
		pid, parent, err := parseStat(c.text)
		if (err == nil) != c.ok || c.ok && (pid != c.pid || parent != c.parent) {
			t.Errorf("parseStat(%q) = %d, %d, %v; want %d, %d, ok %v", c.text, pid, parent, err, c.pid, c.parent, c.ok)
		}
	}
}

func TestMedian_IsTheMiddleOrTheMeanOfTheMiddleTwo(t *testing.T) {
	for want, values := range map[float64][]float64{1: {1}, 2: {3, 1, 2}, 2.5: {4, 1, 3, 2}} {
		if got := median(values); got != want {
			t.Errorf("median(%v) = %v, want %v", values, got, want)
		}
	}
}

func TestDataset_QueriesAskForWhatTheZoneHas(t *testing.T) {
	d := dataset{services: 3, instances: 2}
	records := map[string]map[uint16]int{}
	z := dns.NewZoneParser(strings.NewReader(d.zoneFile()), ".", "")
	for rr, ok := z.Next(); ok; rr, ok = z.Next() {
		h := rr.Header()
		if records[h.Name] == nil {
			records[h.Name] = map[uint16]int{}
		}
		records[h.Name][h.Rrtype]++
	}
	if err := z.Err(); err != nil {
		t.Fatal(err)
	}
	asked := map[uint16]int{}
	for b := d.queries(true); len(b) > 0; {
		n := int(b[0])<<8 | int(b[1])
		var m dns.Msg
		if err := m.Unpack(b[2 : 2+n]); err != nil {
			t.Fatal(err)
		}
		b = b[2+n:]
		q := m.Question[0]
		asked[q.Qtype]++
		if records[q.Name][q.Qtype] != d.instances {
			t.Fatalf("%s has %d records in the zone, want %d", q.String(), records[q.Name][q.Qtype], d.instances)
		}
	}
	if n := asked[dns.TypeA] + asked[dns.TypeSRV]; n != queriesCount {
		t.Errorf("%d queries, want %d", n, queriesCount)
	}
	if share := float64(asked[dns.TypeSRV]) / queriesCount; share < 0.18 || share > 0.22 {
		t.Errorf("%.2f of the queries ask for SRV, want about %.2f", share, srvShare)
	}
}

// TestRun_MeasuresTheEcho runs the whole of the machinery, with the echo alone. On a
// machine that is busy a socket's buffer may be full once: it is tried again.
func TestRun_MeasuresTheEcho(t *testing.T) {
	const tries = 5
	for try := 1; ; try++ {
		err := measureEcho(t)
		if err == nil {
			return
		}
		if try == tries {
			t.Fatal(err)
		}
		t.Log(err)
	}
}

// measureEcho measures the echo once, which must lose nothing.
func measureEcho(t *testing.T) error {
	t.Helper()
	var out strings.Builder
	if err := run(t.Context(), []string{"dns", "-only", "echo", "-rounds", "1", "-seconds", "0.1"}, &out); err != nil {
		return fmt.Errorf("%w\n%s", err, &out)
	}
	lines := 0
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "echo" {
			continue
		}
		lines++
		// server, CPU, ratio (spread), rate, ratio (spread), p50, p99, sent, lost, ...
		if f[9] == "0" || f[10] != "0" {
			return fmt.Errorf("%s sent and %s lost, want some and none: %s", f[9], f[10], line)
		}
		if f[7] == "0" || f[8] == "0" {
			return fmt.Errorf("p50 %s us and p99 %s us: %s", f[7], f[8], line)
		}
	}
	if lines != len(kinds) {
		return fmt.Errorf("the echo stands in %d tables, want %d:\n%s", lines, len(kinds), &out)
	}
	return nil
}

// TestExchange_MeasuresTheInstance runs what asks against what answers, without
// a proxy between them.
func TestExchange_MeasuresTheInstance(t *testing.T) {
	instance, err := startInstance(answerHTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer instance.stop()
	for k := range l7Kinds {
		if err := exchangeClosed(t.Context(), instance.addr(), &l7Kinds[k], 3, 20); err != nil {
			t.Errorf("%s: %v", l7Kinds[k].title, err)
		}
	}
	took, err := exchangeAtRate(t.Context(), instance.addr(), &l7Kinds[0], l7Options{conns: 2, rate: 1000, seconds: 0.1})
	if err != nil || len(took) != 100 || quantile(took, 0.5) <= 0 || quantile(took, 0.99) < quantile(took, 0.5) {
		t.Errorf("%d latencies, %v, %v", len(took), took, err)
	}
	if err := exchangeClosed(t.Context(), instance.addr(), &l7Kind{request: l7Kinds[0].request, body: "other"}, 1, 1); err == nil {
		t.Error("a wrong answer is taken for right")
	}
}

// TestSteady_CountsFromWhenARequestWasDue makes requests of what answers, and of
// what has ended.
func TestSteady_CountsFromWhenARequestWasDue(t *testing.T) {
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "me") }))
	defer instance.Close()
	addr := instance.Listener.Addr().String()
	load := &steady{addr: addr, request: failoverRequest, rate: 1000, patience: 10 * time.Second}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	visits := load.run(ctx)
	if len(visits) < 2 {
		t.Fatalf("%d requests in 200 ms, want about 200", len(visits))
	}
	for i, v := range visits {
		if v.err != nil || v.from != "me" || v.took() <= 0 || !v.due.Equal(visits[0].due.Add(time.Duration(i)*time.Millisecond)) {
			t.Fatalf("request %d was due at %s and ended at %s: %q, %v", i, v.due, v.ended, v.from, v.err)
		}
	}
	instance.Close()
	load = &steady{addr: addr, request: failoverRequest, rate: 100, patience: 10 * time.Second}
	begun := time.Now()
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var r failoverResult
	r.add(load.run(ctx), begun.Add(-time.Hour))
	if r.failed == 0 || r.failed != r.sent || r.last < time.Hour {
		t.Errorf("of %d requests of an instance that has ended %d failed, the last %s after an hour before it began: %v", r.sent, r.failed, r.last, r.why)
	}
}

// TestL4Kind_MeasuresTheInstance asks an instance without a proxy before it.
func TestL4Kind_MeasuresTheInstance(t *testing.T) {
	instance, err := startInstance(answerTCP)
	if err != nil {
		t.Fatal(err)
	}
	for k := range l4Kinds {
		if err := l4Kinds[k].turn(t.Context(), instance.addr(), 2, 3); err != nil {
			t.Errorf("%s: %v", l4Kinds[k].name, err)
		}
	}
	instance.stop()
	if err := l4Kinds[0].turn(t.Context(), instance.addr(), 1, 1); err == nil {
		t.Error("an instance that has ended answers")
	}
}

func TestBalance_IsJudgedByItsBound(t *testing.T) {
	for i := range balances {
		b := &balances[i]
		var right, wrong balanceShares
		for host := range balanceHosts {
			right.answered[host], right.busiest[host] = int(b.want(host)), b.conns/balanceHosts
		}
		if b.slow > 0 {
			right.answered[0] = 0
		}
		wrong.answered[1], wrong.busiest[1], wrong.moved = b.n, b.conns, 1
		wrong.answered[0] = b.n / 10
		if figure, bound, ok := b.judge(b, &right); !ok {
			t.Errorf("%s: %s is refused, with the bound %s", b.name, figure, bound)
		}
		if figure, bound, ok := b.judge(b, &wrong); ok && bound != "none" {
			t.Errorf("%s: %s is taken for right, with the bound %s", b.name, figure, bound)
		}
	}
}

func TestRun_NamesWhatItDoesNotKnow(t *testing.T) {
	for want, args := range map[string][]string{
		`no benchmark "x"`:    {"x"},
		`no server "tinydns"`: {"dns", "-only", "echo,tinydns"},
		`no proxy "squid"`:    {"l7", "-only", "nginx,squid"},
		"must be above 0":     {"dns", "-rounds", "0"},
		`-choice "best"`:      {"failover", "-choice", "best"},
		"not defined: -foo":   {"dns", "-foo"},
	} {
		var out strings.Builder
		err := run(t.Context(), args, &out)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("bench %v: %v, want an error with %q", args, err, want)
		}
	}
}

func TestH2loadSample_TakesTimesFromTheLog(t *testing.T) {
	var log strings.Builder
	for i := range 200 {
		fmt.Fprintf(&log, "1700000000000000\t200\t%d\n", 200-i)
	}
	log.WriteString("1700000000000000\t503\t999999\n")
	got, err := h2loadSample("status codes: 200 2xx, 0 3xx, 0 4xx, 1 5xx\n", log.String(), 2)
	if err != nil {
		t.Fatal(err)
	}
	var s sample
	if err := json.Unmarshal(got, &s); err != nil {
		t.Fatal(err)
	}
	if s.Received != 200 || s.P50 != 101 || s.P99 != 199 || s.ElapsedNS != 2e9 {
		t.Errorf("%+v", s)
	}
	if _, err := h2loadSample("status codes: 1 2xx\n", "no line of a log\n", 2); err == nil {
		t.Error("a log that is none is taken")
	}
}
