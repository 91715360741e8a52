package health

import "time"

const (
	// FallWindow is how close together falls are that count as at once: a black
	// hole is found out within an interval, the checks that follow and their
	// timeouts, which are 5 s by default.
	FallWindow = 10 * time.Second
	// fallStep is how exactly the window is kept.
	fallStep = 500 * time.Millisecond
	// MassMin is the number of falls below which nothing is a mass failure: a
	// few instances on one machine do fall together.
	MassMin = 10
	// SuspectMax is how long a server doubts its own checks. What lasts longer
	// is believed.
	SuspectMax = 10 * time.Minute
)

// Falls counts what fell within the last FallWindow. The zero value is ready.
// Times are nanoseconds of any one clock. It is not safe for concurrent use.
type Falls struct {
	steps  [FallWindow / fallStep]int32 // a ring by time
	newest int64                        // step
	sum    int
}

// Add counts a fall.
func (f *Falls) Add(now int64) {
	f.turn(now)
	f.steps[f.at(f.newest)]++
	f.sum++
}

// Undo takes back a fall of the time at: what fell is well again.
func (f *Falls) Undo(at, now int64) {
	f.turn(now)
	if step := at / int64(fallStep); step > f.newest-int64(len(f.steps)) && f.steps[f.at(step)] > 0 {
		f.steps[f.at(step)]--
		f.sum--
	}
}

// Count is the number of falls within the window.
func (f *Falls) Count(now int64) int {
	f.turn(now)
	return f.sum
}

// turn forgets what has left the window.
func (f *Falls) turn(now int64) {
	for step := now / int64(fallStep); f.newest < step; {
		f.newest = max(f.newest+1, step-int64(len(f.steps))+1)
		f.sum -= int(f.steps[f.at(f.newest)])
		f.steps[f.at(f.newest)] = 0
	}
}

func (f *Falls) at(step int64) int { return int(step % int64(len(f.steps))) }

// Mass reports whether so many falls of so many are a mass failure: half, and
// MassMin.
func Mass(falls, of int) bool { return falls >= MassMin && falls*2 >= of }

// Guard makes a server that sees most of what it checks fail at once doubt its
// own network. The zero value is ready; it is not safe for concurrent use.
type Guard struct {
	Falls
	since int64 // when it became a suspect; 0: it is none
}

// Suspect reports whether the server doubts its checks, of which so many fail
// now. It begins with a mass failure, and ends when less than that still fails,
// or after SuspectMax.
func (g *Guard) Suspect(now int64, failing, of int) bool {
	switch {
	case g.since == 0 && Mass(g.Count(now), of):
		g.since = now
	case g.since != 0 && (!Mass(failing, of) || now-g.since >= int64(SuspectMax)):
		g.since = 0
	}
	return g.since != 0
}
