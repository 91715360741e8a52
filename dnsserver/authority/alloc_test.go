//go:build !race

package authority_test

import "testing"

// TestHandler_ServeDNS_allocations holds the query path to none. It is built
// without the race detector, under which sync.Pool drops values at random.
func TestHandler_ServeDNS_allocations(t *testing.T) {
	h := benchHandler(t, 0)
	for _, tt := range benchQueries {
		t.Run(tt.name, func(t *testing.T) {
			p := prepare(t, tt.qname, tt.qtype)
			if n := testing.AllocsPerRun(1000, func() { p.serve(h) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
