package metrics_test

import (
	"fmt"
	"io"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/musterdns/muster/cmd/internal/metrics"
)

// newRegistry returns a registry that is ready for families.
func newRegistry(t *testing.T) *metrics.Registry {
	t.Helper()
	r, err := metrics.New(metrics.Build{Version: "v1.2.3", Revision: "abc"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// scrape returns the exposition as a scraper without OpenMetrics gets it.
func scrape(t *testing.T, r *metrics.Registry) string {
	t.Helper()
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	body, err := io.ReadAll(rec.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	if rec.Code != 200 {
		t.Fatalf("status %d: %s", rec.Code, body)
	}
	return string(body)
}

// one is a Collect that emits a single series without labels.
func one(v float64) func(metrics.Emit) {
	return func(emit metrics.Emit) { emit(v) }
}

func TestNew_ShowsBuildProcessAndRuntime(t *testing.T) {
	out := scrape(t, newRegistry(t))
	for _, want := range []string{
		`muster_build_info{goversion="go1`, `revision="abc",version="v1.2.3"} 1`,
		"\ngo_goroutines ", "\nprocess_resident_memory_bytes ",
		`muster_metrics_series_dropped_total{reason="limit"} 0`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("exposition lacks %q", want)
		}
	}
}

func TestRegistry_Add_ShowsSeriesAsOfTheScrape(t *testing.T) {
	r := newRegistry(t)
	var udp float64
	err := r.Add(metrics.Family{
		Name: "muster_dns_responses_total", Kind: metrics.Counter, Labels: []string{"transport"},
		Help: "Responses sent.",
		Collect: func(emit metrics.Emit) {
			emit(udp, "udp")
			emit(2, "tcp")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	udp = 41
	out := scrape(t, r)
	for _, want := range []string{
		"# HELP muster_dns_responses_total Responses sent.\n# TYPE muster_dns_responses_total counter\n",
		"muster_dns_responses_total{transport=\"udp\"} 41\n",
		"muster_dns_responses_total{transport=\"tcp\"} 2\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("exposition lacks %q", want)
		}
	}
}

func TestRegistry_Add_ShowsDistributions(t *testing.T) {
	r := newRegistry(t)
	err := r.Add(metrics.Family{
		Name: "muster_took_seconds", Kind: metrics.Histogram, Labels: []string{"cause"}, Help: "How long it took.",
		Distributions: func(emit metrics.EmitDistribution) {
			emit(metrics.Distribution{Count: 3, Sum: 7.5, Within: map[float64]uint64{0.5: 1, 2: 2}}, "tcp")
			emit(metrics.Distribution{Count: 1}) // too few labels
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `# TYPE muster_took_seconds histogram
muster_took_seconds_bucket{cause="tcp",le="0.5"} 1
muster_took_seconds_bucket{cause="tcp",le="2"} 2
muster_took_seconds_bucket{cause="tcp",le="+Inf"} 3
muster_took_seconds_sum{cause="tcp"} 7.5
muster_took_seconds_count{cause="tcp"} 3
`
	if out := scrape(t, r); !strings.Contains(out, want) {
		t.Errorf("exposition lacks\n%s", want)
	}
}

func TestRegistry_Add_RefusesWhatBreaksTheRules(t *testing.T) {
	cases := []struct {
		name string
		fam  metrics.Family
		want string
	}{
		{"foreign prefix", metrics.Family{Name: "dns_x", Help: "h", Kind: metrics.Gauge, Collect: one(1)}, `must begin with "muster_"`},
		{"no help", metrics.Family{Name: "muster_x", Kind: metrics.Gauge, Collect: one(1)}, "help is empty"},
		{"no kind", metrics.Family{Name: "muster_x", Help: "h", Collect: one(1)}, "kind is unset"},
		{"counter without _total", metrics.Family{Name: "muster_x", Help: "h", Kind: metrics.Counter, Collect: one(1)}, "end in _total"},
		{"gauge with _total", metrics.Family{Name: "muster_x_total", Help: "h", Kind: metrics.Gauge, Collect: one(1)}, "end in _total"},
		{"no collect", metrics.Family{Name: "muster_x", Help: "h", Kind: metrics.Gauge}, "collect is nil"},
		{"a histogram that collects values", metrics.Family{Name: "muster_x", Help: "h", Kind: metrics.Histogram, Collect: one(1)}, "collect is nil, or not nil"},
		{"a histogram without distributions", metrics.Family{Name: "muster_x", Help: "h", Kind: metrics.Histogram}, "distributions is nil"},
		{"label per question", metrics.Family{Name: "muster_x", Help: "h", Kind: metrics.Gauge, Labels: []string{"qname"}, Collect: one(1)}, metrics.ErrLabel.Error()},
		{"label per address, though bounded", metrics.Family{Name: "muster_x", Help: "h", Kind: metrics.Gauge, Labels: []string{"address"}, Bound: 9, Collect: one(1)}, metrics.ErrLabel.Error()},
		{"label that the scraper has", metrics.Family{Name: "muster_x", Help: "h", Kind: metrics.Gauge, Labels: []string{"instance"}, Bound: 9, Collect: one(1)}, metrics.ErrLabel.Error()},
		{"bad name", metrics.Family{Name: "muster_x\xff", Help: "h", Kind: metrics.Gauge, Collect: one(1)}, "muster_x"},
		{"name twice", metrics.Family{Name: "muster_build_info", Help: "h", Kind: metrics.Gauge, Collect: one(1)}, "muster_build_info"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := newRegistry(t).Add(c.fam)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestRegistry_Add_TakesAFamilysOwnBound(t *testing.T) {
	r := newRegistry(t)
	err := r.Add(metrics.Family{
		Name: "muster_a_in_flight", Kind: metrics.Gauge, Labels: []string{"service", "instance_id"}, Help: "h", Bound: metrics.SeriesMax + 9,
		Collect: func(emit metrics.Emit) {
			for i := range metrics.SeriesMax + 10 {
				emit(1, "web", strconv.Itoa(i))
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	out := scrape(t, r)
	if n := strings.Count(out, "muster_a_in_flight{"); n != metrics.SeriesMax+9 {
		t.Errorf("%d series, want as many as its bound, %d", n, metrics.SeriesMax+9)
	}
	if strings.Contains(scrape(t, r), `muster_metrics_series_dropped_total{reason="limit"} 0`) {
		t.Error("what is beyond the bound is not counted")
	}
}

func TestRegistry_Add_BoundsTheSeriesOfAFamilyAndCounts(t *testing.T) {
	r := newRegistry(t)
	err := r.Add(metrics.Family{
		Name: "muster_a_zones", Kind: metrics.Gauge, Labels: []string{"zone"}, Help: "h",
		Collect: func(emit metrics.Emit) {
			emit(1)                // too few labels
			emit(1, "a", "b")      // too many
			emit(1, "not \xffutf") // not UTF-8
			for i := range metrics.SeriesMax + 7 {
				emit(1, strconv.Itoa(i))
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(scrape(t, r), "muster_a_zones{"); n != metrics.SeriesMax {
		t.Errorf("%d series shown, want %d", n, metrics.SeriesMax)
	}
	// The second scrape shows at least what the first one left out; families
	// are collected at the same time, so it may show its own beside it.
	out := scrape(t, r)
	for reason, least := range map[string]int{"limit": 7, "labels": 3} {
		var got int
		_, rest, ok := strings.Cut(out, fmt.Sprintf("dropped_total{reason=%q} ", reason))
		if _, err := fmt.Sscan(rest, &got); !ok || err != nil || got < least {
			t.Errorf("dropped for %s: %d (found %v, %v), want %d or more", reason, got, ok, err, least)
		}
	}
}
