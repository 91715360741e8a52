package pool

import "github.com/musterdns/muster/registry"

// facesLine is how many faces lie in a cache line.
const facesLine = 3

// Hash is what Warm knows a service by, whose name is as Find takes it.
func (v *View) Hash(source registry.SourceID, name []byte) uint64 {
	return hashKey(v.seed, uint16(source), name)
}

// Warm reads the step-th of the places, counted from 0, that lead to an answer for a
// service: its slot, the service, and what that refers to. Who goes each step with several
// services waits for the memory of all at once. What it returns is made of what it read.
func (v *View) Warm(step int, hash uint64) (read uint64) {
	if step > 2 {
		return 0
	}
	s := v.services.likely(hash)
	switch {
	case step == 0 || s == nil:
		return 0
	case step == 1:
		return s.hash + uint64(s.whole.filter.kind) // where what answers read begins and ends
	}
	for i := 0; i < min(len(s.faces.list), answersAuto); i += facesLine {
		read += uint64(s.faces.list[i].port)
	}
	if g := s.whole.groups[FamilyA]; g != nil {
		read += uint64(g.mode) + uint64(g.first[0].size)
	}
	return read + uint64(s.name[0])
}
