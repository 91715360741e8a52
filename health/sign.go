package health

import "time"

// sign is the beginning of a failure: what first showed it, and the last that
// showed the target to be well before. Both are times at which checks began: a
// check that timed out was wrong from its beginning, and one that passed proves
// nothing of what came after it began.
type sign struct{ first, good int64 }

// signs holds the signs of the targets that fail, or may by a failure that no
// check has confirmed yet: targets that are well take no room in it.
type signs map[ID]sign

// sign notes the first sign of a failure of e, if it is the first.
func (m *Monitor) sign(e *entry, first, good int64) {
	if _, there := m.signs[e.id]; there {
		return
	}
	if m.signs == nil {
		m.signs = signs{}
	}
	m.signs[e.id] = sign{first, good}
}

// unsign forgets the sign of a target that is well again, or gone.
func (m *Monitor) unsign(e *entry) {
	if len(m.signs) == 0 {
		return
	}
	if delete(m.signs, e.id); len(m.signs) == 0 {
		m.signs = nil // a map keeps the room of the most it has held
	}
}

// judgeSign notes or forgets a sign after a result of a check that began at
// start. good is goodAt of before it.
func (m *Monitor) judgeSign(e *entry, start, good int64) {
	switch {
	case e.failures > 0:
		m.sign(e, start, good)
	case e.state != Failing && !e.soon && !e.lost: // with these, the sign came during the check
		m.unsign(e)
	}
}

// goodAt is when the last check began, if it passed; else never.
func (e *entry) goodAt() int64 {
	if e.passes == 0 {
		return never
	}
	return e.last - int64(e.latency)
}

// describe adds a sign to what is said of a target.
func (s sign) describe(to *Status, wall time.Time) {
	to.FirstSign = wall.Add(time.Duration(s.first))
	if s.good != never {
		to.LastGood = wall.Add(time.Duration(s.good))
	}
}
