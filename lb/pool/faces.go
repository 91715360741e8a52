package pool

import (
	"bytes"
	"slices"
)

// face is what an answer and the choice of a set need of one instance. Answers
// read the faces of a service one after the other instead of its records, each
// of which would cost a cache miss.
type face struct {
	addr4    [4]byte // the first IPv4 address
	at       uint32  // where its octets begin in faces.octets
	port     uint16
	weight   uint16 // registered
	priority uint16
	ttl      uint16 // seconds; 0: none of its own
	count4   uint8
	count6   uint8
	label    uint8 // octets of the id as a label
	families uint8 // a bit a Family that the instance is of by itself
}

// faces is what is registered of a service's instances, by number. Its blocks
// never change: forms of a service share those in which they do not differ.
type faces struct {
	list    []face
	octets  []byte   // of each instance, what record.front has
	hashes  []uint64 // identities
	records recordList
}

// recordList is records in blocks, so that the change of one copies no more than
// its block: they are pointers, which the collector has to follow.
type recordList [][]record

const recordBlock = 128

func newRecordList(insts []inst) recordList {
	all := make([]record, len(insts))
	for i := range insts {
		all[i] = insts[i].rec
	}
	return slices.Collect(slices.Chunk(all, recordBlock))
}

func (l recordList) at(i int) record { return l[i/recordBlock][i%recordBlock] }

// with is l with the records of insts from low to high.
func (l recordList) with(insts []inst, low, high int) recordList {
	next := slices.Clone(l)
	for at := low; at < high; {
		b := at / recordBlock
		next[b] = slices.Clone(l[b])
		for ; at < high && at/recordBlock == b; at++ {
			next[b][at%recordBlock] = insts[at].rec
		}
	}
	return next
}

// newFace makes the face of a record, its octets at at.
func newFace(rec record, at int) face {
	f := face{
		at: uint32(at), port: rec.port(), weight: rec.weight(), priority: rec.priority(),
		count4: uint8(rec.count4()), count6: uint8(rec.count6()), label: uint8(len(rec.label())),
	}
	if ms := rec.ttlMillis(); ms > 0 {
		f.ttl = uint16(clampTTL(millis(ms)))
	}
	if f.count4 > 0 {
		f.addr4 = rec.addr4(0)
		f.families |= 1 << FamilyA
	}
	if f.count6 > 0 {
		f.families |= 1 << FamilyAAAA
	}
	if f.port != 0 {
		f.families |= 1 << FamilySRV
	}
	return f
}

// chosenLike reports whether sets and tiers choose the two alike, the states of
// their instances being the same.
func (f *face) chosenLike(g *face) bool {
	return f.families == g.families && f.priority == g.priority && f.ttl == g.ttl && f.label == g.label
}

// span is the instances whose records differ between two forms of a service:
// those before low are the same in both, and those from oldHigh on are those
// from newHigh on.
type span struct{ low, oldHigh, newHigh int }

// spanOf compares two forms. When they differ in places that are far apart, the
// span covers all between.
func spanOf(insts []inst, old *faces) span {
	s := span{0, len(old.list), len(insts)}
	for s.low < min(s.oldHigh, s.newHigh) && same(insts[s.low].rec, old.records.at(s.low)) {
		s.low++
	}
	for min(s.oldHigh, s.newHigh) > s.low && same(insts[s.newHigh-1].rec, old.records.at(s.oldHigh-1)) {
		s.oldHigh--
		s.newHigh--
	}
	return s
}

// same reports whether two records are one object.
func same(a, b record) bool { return &a[0] == &b[0] }

// newFaces makes the faces of a service's insts from those of an older form, from
// which they differ in s.
func newFaces(service string, insts []inst, old *faces, s span) faces {
	switch {
	case len(insts) == len(old.list) && s.low == s.newHigh:
		return *old
	case s.newHigh == s.oldHigh && old.sameFronts(insts, s):
		f := faces{slices.Clone(old.list), old.octets, old.hashes, old.records.with(insts, s.low, s.newHigh)}
		for i := s.low; i < s.newHigh; i++ {
			f.list[i] = newFace(insts[i].rec, old.begin(i))
		}
		return f
	}
	between := 0
	for i := s.low; i < s.newHigh; i++ {
		between += len(insts[i].rec.front())
	}
	from, to := old.begin(s.low), old.begin(s.oldHigh)
	f := faces{
		slices.Concat(old.list[:s.low], make([]face, s.newHigh-s.low), old.list[s.oldHigh:]),
		slices.Concat(old.octets[:from], make([]byte, between), old.octets[to:]),
		slices.Concat(old.hashes[:s.low], make([]uint64, s.newHigh-s.low), old.hashes[s.oldHigh:]),
		newRecordList(insts),
	}
	at := from
	for i := s.low; i < s.newHigh; i++ {
		f.hashes[i] = identity(service, string(insts[i].rec.id()))
		f.list[i] = newFace(insts[i].rec, at)
		at += copy(f.octets[at:], insts[i].rec.front())
	}
	for i := s.newHigh; i < len(f.list); i++ {
		f.list[i].at += uint32(at - to)
	}
	return f
}

// sameFronts reports whether instances of a span have the octets that they had.
func (f *faces) sameFronts(insts []inst, s span) bool {
	for i := s.low; i < s.newHigh; i++ {
		if !bytes.Equal(f.octets[f.begin(i):f.begin(i+1)], insts[i].rec.front()) {
			return false
		}
	}
	return true
}

// begin is where the octets of instance i begin, or would if there were one.
func (f *faces) begin(i int) int {
	if i == len(f.list) {
		return len(f.octets)
	}
	return int(f.list[i].at)
}

func (f *faces) addr4(i uint32, n int) [4]byte {
	if n == 0 {
		return f.list[i].addr4
	}
	return [4]byte(f.octets[int(f.list[i].at)+4*n:])
}

func (f *faces) addr6(i uint32, n int) [16]byte {
	a := &f.list[i]
	return [16]byte(f.octets[int(a.at)+4*int(a.count4)+16*n:])
}

func (f *faces) labelOf(i uint32) []byte {
	a := &f.list[i]
	at := int(a.at) + 4*int(a.count4) + 16*int(a.count6)
	return f.octets[at : at+int(a.label)]
}

// portsOf is the packed named ports of instance i.
func (f *faces) portsOf(i uint32) reader {
	a := &f.list[i]
	return reader{f.octets[int(a.at)+4*int(a.count4)+16*int(a.count6)+int(a.label):]}
}

// elsewhere reports whether an instance other than i has one of its addresses.
func (f *faces) elsewhere(i uint32) bool {
	own := &f.list[i]
	for k := range uint32(len(f.list)) {
		if k == i {
			continue
		}
		for n := range int(f.list[k].count4) {
			for m := range int(own.count4) {
				if f.addr4(k, n) == f.addr4(i, m) {
					return true
				}
			}
		}
		for n := range int(f.list[k].count6) {
			for m := range int(own.count6) {
				if f.addr6(k, n) == f.addr6(i, m) {
					return true
				}
			}
		}
	}
	return false
}
