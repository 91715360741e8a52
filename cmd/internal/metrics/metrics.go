// Package metrics turns counters that other packages keep into the Prometheus
// exposition. It is the one importer of the Prometheus client: a package counts
// in plain atomics and shows them as a value, and the composition root
// registers a Family that reads that value when somebody scrapes. Nothing here
// runs between scrapes, so the query path pays for no metric.
//
// Invariant: no label may name a service, an instance, a question or a client,
// because their number is not Muster's to bound. Add refuses such labels, and
// a family shows at most SeriesMax series. The one exception is a family that
// bounds them itself, and says by Bound to how many.
package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// SeriesMax is the greatest number of series that one family shows. Labels are
// response codes, transports, check types, zones and the like, of which a large
// site has a few dozen; what lies beyond is left out and counted in
// muster_metrics_series_dropped_total, so that a mistake cannot fill the
// scraper's memory.
const SeriesMax = 512

// scrapesMax bounds the scrapes that run at one time. Two servers scraping in
// parallel are usual; more wait for nothing and get 503.
const scrapesMax = 4

// prefix begins every name, so that Muster's families stand together.
const prefix = "muster_"

// Kind is the kind of a family's values. Zero is unset.
type Kind uint8

// The kinds.
const (
	KindUnset Kind = iota
	Counter        // only grows; its name ends in _total
	Gauge          // goes up and down
	Histogram      // counts values by class; has Distributions in place of Collect
)

// String is the kind's name in the exposition format.
func (k Kind) String() string {
	switch k {
	case Counter:
		return "counter"
	case Gauge:
		return "gauge"
	case Histogram:
		return "histogram"
	case KindUnset:
		return "unset"
	default:
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
}

// valueType is the client library's word for the kind.
func (k Kind) valueType() prometheus.ValueType {
	if k == Counter {
		return prometheus.CounterValue
	}
	return prometheus.GaugeValue
}

// Emit takes one series of a family: its value and the value of each of the
// family's labels, in their order.
type Emit func(value float64, labels ...string)

// Distribution is one series of a Histogram.
type Distribution struct {
	Count  uint64
	Sum    float64
	Within map[float64]uint64 // how many values are not above each bound
}

// EmitDistribution is Emit for a Histogram.
type EmitDistribution func(d Distribution, labels ...string)

// Family is one metric with all its series, read when somebody scrapes.
type Family struct {
	// Name begins with "muster_", has base units (seconds, bytes) and ends in
	// _total if the kind is Counter and only then.
	Name string
	// Help is one sentence for the operator. It must not be empty.
	Help string
	Kind Kind
	// Labels are the label names; nil for a single series.
	Labels []string
	// Bound is how many series Collect emits at most, by a rule of its own, in
	// place of SeriesMax; 0: it has none. With it labels may name services and
	// instances.
	Bound int
	// Collect calls emit once a series. It is called once a scrape, perhaps by
	// several scrapes at a time, and must not block for longer than it takes to
	// read counters. emit must not be called after it has returned.
	Collect func(emit Emit)
	// Distributions is Collect for a Histogram, which has no Collect.
	Distributions func(emit EmitDistribution)
}

// unbounded are the label names that would make the number of series depend on
// what is registered or asked. See the package's invariant.
var unbounded = []string{
	"address", "client", "client_ip", "domain", "fqdn", "host", "instance",
	"instance_id", "ip", "key", "name", "path", "qname", "question", "service", "source_ip", "target", "url", "user",
}

// bounded are those of them that a family with a Bound may have. "instance" is
// not among them: Prometheus means the scraped server by it.
var bounded = []string{"instance_id", "service"}

// ErrLabel is the error of a label whose values nobody bounds.
var ErrLabel = errors.New("label would have a value for each name or client")

// validate reports what is wrong with f.
func (f *Family) validate() error {
	switch {
	case !strings.HasPrefix(f.Name, prefix):
		return fmt.Errorf("metric %q: the name must begin with %q", f.Name, prefix)
	case f.Help == "":
		return fmt.Errorf("metric %q: help is empty", f.Name)
	case f.Kind != Counter && f.Kind != Gauge && f.Kind != Histogram:
		return fmt.Errorf("metric %q: kind is %s, must be counter, gauge or histogram", f.Name, f.Kind)
	case (f.Kind == Counter) != strings.HasSuffix(f.Name, "_total"):
		return fmt.Errorf("metric %q: counters, and only they, end in _total", f.Name)
	case (f.Collect == nil) != (f.Kind == Histogram):
		return fmt.Errorf("metric %q: collect is nil, or not nil for a histogram", f.Name)
	case (f.Distributions == nil) == (f.Kind == Histogram):
		return fmt.Errorf("metric %q: distributions is nil, or not nil for no histogram", f.Name)
	}
	for _, l := range f.Labels {
		if slices.Contains(unbounded, l) && (f.Bound == 0 || !slices.Contains(bounded, l)) {
			return fmt.Errorf("metric %q: label %q: %w", f.Name, l, ErrLabel)
		}
	}
	return nil
}

// Build says what program runs, for muster_build_info.
type Build struct {
	Version  string // "" is shown as "unknown"
	Revision string // the commit; "" is shown as "unknown"
}

// Registry holds families and shows them. It is safe for concurrent use.
type Registry struct {
	prom    *prometheus.Registry
	dropped atomic.Uint64 // series beyond SeriesMax
	wrong   atomic.Uint64 // series with a wrong number of label values
}

// New returns a registry with the process's and the Go runtime's own families
// and muster_build_info.
func New(b Build) (*Registry, error) {
	r := &Registry{prom: prometheus.NewRegistry()}
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := r.prom.Register(c); err != nil {
			return nil, fmt.Errorf("registering the runtime's metrics: %w", err)
		}
	}
	version, revision := orUnknown(b.Version), orUnknown(b.Revision)
	err := r.Add(
		Family{
			Name: "muster_build_info", Kind: Gauge, Labels: []string{"version", "revision", "goversion"},
			Help:    "Always 1; the labels say what program runs.",
			Collect: func(emit Emit) { emit(1, version, revision, runtime.Version()) },
		},
		Family{
			Name: "muster_metrics_series_dropped_total", Kind: Counter, Labels: []string{"reason"},
			Help: "Series left out of a scrape: over the limit of a family, or with the wrong number of labels.",
			Collect: func(emit Emit) {
				emit(float64(r.dropped.Load()), "limit")
				emit(float64(r.wrong.Load()), "labels")
			},
		},
	)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// orUnknown returns s, or "unknown" for the empty string.
func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// Add registers families. It stops at the first that is invalid or whose name
// is taken, and says which; those before it stay registered.
func (r *Registry) Add(families ...Family) error {
	for _, f := range families {
		if err := f.validate(); err != nil {
			return err
		}
		c := &collector{
			reg: r, fam: f, labels: len(f.Labels),
			desc: prometheus.NewDesc(f.Name, f.Help, f.Labels, nil),
		}
		if err := r.prom.Register(c); err != nil {
			return fmt.Errorf("metric %q: %w", f.Name, err)
		}
	}
	return nil
}

// Handler serves the exposition, in the text or OpenMetrics format as the
// client asks. A family that fails is left out and the rest is served.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.prom, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapesMax,
		EnableOpenMetrics:   true,
	})
}

// collector shows one family.
type collector struct {
	reg    *Registry
	fam    Family
	labels int
	desc   *prometheus.Desc
}

// Describe sends the family's description (prometheus.Collector).
func (c *collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect sends the family's series (prometheus.Collector).
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	n, most := 0, cmp.Or(c.fam.Bound, SeriesMax)
	send := func(labels []string, metric func() (prometheus.Metric, error)) {
		if len(labels) != c.labels {
			c.reg.wrong.Add(1)
			return
		}
		if n == most {
			c.reg.dropped.Add(1)
			return
		}
		m, err := metric()
		if err != nil { // not UTF-8
			c.reg.wrong.Add(1)
			return
		}
		n++
		ch <- m
	}
	if c.fam.Kind == Histogram {
		c.fam.Distributions(func(d Distribution, labels ...string) {
			send(labels, func() (prometheus.Metric, error) {
				return prometheus.NewConstHistogram(c.desc, d.Count, d.Sum, d.Within, labels...)
			})
		})
		return
	}
	kind := c.fam.Kind.valueType()
	c.fam.Collect(func(value float64, labels ...string) {
		send(labels, func() (prometheus.Metric, error) {
			return prometheus.NewConstMetric(c.desc, kind, value, labels...)
		})
	})
}
