package authority

import (
	"context"
	"sync"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// Limits of what is kept of zones as they were when they were transferred, from
// which later changes are told.
const (
	versionsMax      = 8         // of one zone
	journalOctetsMax = 128 << 20 // of all, roughly
)

// journal keeps the last versions of zones that were transferred: a secondary that
// has one of them is told what has changed since. A version that nobody has taken is
// not kept.
type journal struct {
	// exports are slots for zones that change by themselves: the first time one that is signed
	// is told whole, all of it is signed, which leaves cores to questions.
	exports chan struct{}

	mu     sync.Mutex
	zones  map[string]*versions
	octets int
}

// versions is those of one zone, the oldest first.
type versions struct {
	making sync.Mutex // one export at a time
	list   []version
}

type version struct {
	zone   *zones.Zone // of a static zone: the object itself is the version
	octets int
	export *zones.Export
}

func (j *journal) of(apex *wire.Name) *versions {
	j.mu.Lock()
	defer j.mu.Unlock()
	v := j.zones[string(apex.Wire())]
	if v == nil {
		v = &versions{}
		if j.zones == nil {
			j.zones = map[string]*versions{}
		}
		j.zones[string(apex.Wire())] = v
	}
	return v
}

// current is the zone as it is now.
func (j *journal) current(ctx context.Context, tree *zones.Tree, zone *zones.Zone) (*zones.Export, error) {
	v := j.of(zone.Apex())
	v.making.Lock()
	defer v.making.Unlock()
	serial := zone.Serial()
	if last := j.last(v); last != nil && last.export.Serial == serial && last.zone == zone {
		return last.export, nil
	}
	if zone.Dynamic() {
		select {
		case j.exports <- struct{}{}:
			defer func() { <-j.exports }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	e, err := tree.Export(ctx, zone)
	if err != nil {
		return nil, err
	}
	j.keep(v, version{zone: zone, octets: octetsOf(e), export: e})
	return e, nil
}

func (j *journal) last(v *versions) *version {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(v.list) == 0 {
		return nil
	}
	return &v.list[len(v.list)-1]
}

// keep adds a version, and drops the oldest ones where there are too many.
func (j *journal) keep(v *versions, add version) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range v.list { // one serial number, one version
		if v.list[i].export.Serial == add.export.Serial {
			j.octets -= v.list[i].octets
			v.list = append(v.list[:i:i], v.list[i+1:]...)
			break
		}
	}
	v.list = append(v.list, add)
	j.octets += add.octets
	for len(v.list) > versionsMax {
		j.drop(v)
	}
	for j.octets > journalOctetsMax {
		if !j.dropAny(v) {
			break
		}
	}
}

func (j *journal) drop(v *versions) {
	j.octets -= v.list[0].octets
	v.list = append([]version(nil), v.list[1:]...)
}

// dropAny drops an old version of some zone; false: there are only newest ones, of
// which that of keep stays.
func (j *journal) dropAny(keep *versions) bool {
	for _, v := range j.zones {
		if len(v.list) > 1 || v != keep && len(v.list) > 0 {
			j.drop(v)
			return true
		}
	}
	return false
}

// at is a zone as it was at a serial number; nil: that is not kept.
func (j *journal) at(apex *wire.Name, serial uint32) *zones.Export {
	v := j.of(apex)
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range v.list {
		if v.list[i].export.Serial == serial {
			return v.list[i].export
		}
	}
	return nil
}

// octetsOf is about how much memory an export takes.
func octetsOf(e *zones.Export) int {
	const record = 80 // the Record itself
	n := 0
	for i := range e.Records {
		n += record + len(e.Records[i].Owner) + len(e.Records[i].RData)
	}
	return n
}
