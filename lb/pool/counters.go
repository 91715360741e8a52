package pool

import "sync/atomic"

// counters is Counters as it is kept.
type counters struct {
	batches, rebuilds, healthChanges, failOpens    atomic.Uint64
	problems, problemsDropped, filtersOmitted      atomic.Uint64
	addressesOmitted, unknownSource, tableRebuilds atomic.Uint64
	listingsOmitted                                atomic.Uint64
	failures                                       failureCounts
	churnHolds, damped, suspected, reportsDropped  atomic.Uint64

	modes  [ModeEmpty + 1]atomic.Int64 // services now; ModeUnset counts nothing
	frozen atomic.Int64
}

// Counters returns what has been counted so far. It is safe for concurrent use.
func (p *Pool) Counters() Counters {
	c := &p.counts
	var modes [ModeEmpty + 1]int
	for m := ModeNormal; m <= ModeEmpty; m++ {
		modes[m] = int(c.modes[m].Load())
	}
	return Counters{
		Modes: modes, Frozen: int(c.frozen.Load()),
		Batches: c.batches.Load(), Rebuilds: c.rebuilds.Load(), HealthChanges: c.healthChanges.Load(),
		FailOpens: c.failOpens.Load(), Problems: c.problems.Load(), ProblemsDropped: c.problemsDropped.Load(),
		FiltersOmitted: c.filtersOmitted.Load(), AddressesOmitted: c.addressesOmitted.Load(),
		ListingsOmitted: c.listingsOmitted.Load(),
		EventsLost:      p.events.lost.Load(), UnknownSource: c.unknownSource.Load(), TableRebuilds: c.tableRebuilds.Load(),
		ChurnHolds: c.churnHolds.Load(), Damped: c.damped.Load(), Suspected: c.suspected.Load(), ReportsDropped: c.reportsDropped.Load(),
	}
}
