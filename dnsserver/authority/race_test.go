//go:build race

package authority_test

// raceEnabled: see its other definition.
const raceEnabled = true
