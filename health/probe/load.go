package probe

import (
	"strconv"
	"strings"
)

const (
	// loadHeader is where an instance may say how loaded it is: utilisation as
	// a decimal number, 1 is full.
	loadHeader = "X-Muster-Load"
	// orcaHeader is the same as proxies and gRPC servers say it: Open Request
	// Cost Aggregation, of which the text form is read.
	orcaHeader = "endpoint-load-metrics"
)

// loadMax is the greatest load that is believed, as for load reports of the
// registry: what is above is no utilisation.
const loadMax = 1e6

// parseLoad reads a load; negative: none that makes sense.
func parseLoad(s string) float64 {
	load, err := strconv.ParseFloat(s, 64)
	if err != nil || !(load >= 0 && load <= loadMax) { // also not a number
		return -1
	}
	return load
}

// parseORCA reads "TEXT cpu_utilization=0.3, application_utilization=0.5" and
// takes the application's own measure, else the processor's, as gRPC's weighted
// round robin does (gRFC A58, A64): an application_utilization that is not
// above zero counts as not given. Forms other than TEXT say nothing.
func parseORCA(s string) float64 {
	text, ok := strings.CutPrefix(s, "TEXT ")
	if !ok {
		return -1
	}
	cpu := -1.0
	for metric := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(metric), "=")
		switch strings.TrimSpace(name) {
		case "application_utilization":
			if load := parseLoad(strings.TrimSpace(value)); load > 0 {
				return load
			}
		case "cpu_utilization":
			cpu = parseLoad(strings.TrimSpace(value))
		}
	}
	return cpu
}
