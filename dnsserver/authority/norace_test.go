//go:build !race

package authority_test

// raceEnabled tells tests that count allocations whether the race detector is
// on: sync.Pool then drops values at random.
const raceEnabled = false
