package registry_test

import (
	"strings"
	"testing"

	"github.com/musterdns/muster/registry"
)

// BenchmarkDecodeInstance decodes the short and the full form of DESIGN's
// example: a list of 100,000 is decoded at start.
func BenchmarkDecodeInstance(b *testing.B) {
	forms := map[string]string{
		"text":  `10.0.0.11:8080`,
		"short": `{"address":"10.0.0.11","port":8080}`,
		"full":  fullInstance,
		// As large as a value may be, of fields that are not known.
		"unknown": `{"address":"10.0.0.11",` + strings.TrimSuffix(strings.Repeat(`"wieght":1,`, 5_900), ",") + "}",
	}
	for name, value := range forms {
		b.Run(name, func(b *testing.B) {
			raw := []byte(value)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := registry.DecodeInstance("web", "web-1", raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkKeyspace_Parse parses the key of an instance.
func BenchmarkKeyspace_Parse(b *testing.B) {
	space, err := registry.NewKeyspace(registry.DefaultPrefix)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := space.Parse("/muster/v1/instances/web.prod/web-1"); !ok || err != nil {
			b.Fatal(err)
		}
	}
}

const fullInstance = `{"addresses":["10.0.0.11","fd00::11"],"port":8080,"ports":{"http":8080,"grpc":9090,"dns":"53/udp"},` +
	`"weight":3,"priority":0,"tags":["v2"],"meta":{},"region":"eu","zone":"eu-1a","ttl":2,` +
	`"checks":[{"type":"http","port":"http","path":"/healthz","interval":"2s","timeout":"1s","rise":2,"fall":3},{"type":"https","insecure":true,"keep":true},{"type":"held","path":"/live"},{"type":"exec","command":["/bin/check","--a b",""]}]}`
