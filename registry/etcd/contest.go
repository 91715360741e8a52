package etcd

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/musterdns/muster/registry"
)

// This file is what of a tracker hangs on several keys: names that are spelled
// in several ways.

// settle decides, when all keys of a state have been listed, which spelling of
// a key has its record.
func (t *tracker) settle(ctx context.Context, at lookup) error {
	for canonical, raws := range t.variants {
		slices.Sort(raws)
		if err := t.elect(ctx, canonical, at); err != nil {
			return err
		}
	}
	return nil
}

// spell adds or takes away a spelling that is not in lower case.
func (t *tracker) spell(canonical, raw string, deleted bool) {
	raws := t.variants[canonical]
	i, found := slices.BinarySearch(raws, raw)
	switch {
	case deleted && found:
		raws = slices.Delete(raws, i, i+1)
	case !deleted && !found:
		raws = slices.Insert(raws, i, raw)
	}
	if len(raws) == 0 {
		delete(t.variants, canonical)
		return
	}
	t.variants[canonical] = raws
}

// elect gives the record of a key that is spelled in several ways to one
// spelling and makes the others problems. With none left the record is gone.
func (t *tracker) elect(ctx context.Context, canonical string, at lookup) error {
	key := t.keyOf(canonical)
	losers := t.variants[canonical]
	winner := canonical
	if _, ok := t.present[t.hash(canonical)]; !ok {
		if len(losers) == 0 {
			t.retract(key)
			return nil
		}
		winner, losers = losers[0], losers[1:]
	}
	kv, err := at(ctx, winner)
	if err != nil {
		return err
	}
	for _, raw := range losers {
		t.problem(raw, 0, &registry.FieldError{
			Field: "key", Reason: "names the same record as " + winner,
			Mend: "upper and lower case are one in DNS: delete one of them",
		})
	}
	if kv == nil {
		return nil // a later event of this key deletes it
	}
	t.retracted = true // the spelling that had the record may be among Deleted
	t.decode(key, kv)
	return nil
}

// exists reports whether a key is there in any spelling.
func (t *tracker) exists(canonical string) bool {
	_, ok := t.present[t.hash(canonical)]
	return ok || len(t.variants[canonical]) > 0
}

// keyOf is the Key of a spelling in lower case.
func (t *tracker) keyOf(canonical string) registry.Key {
	key, ok, err := t.format.Parse(canonical)
	if !ok || err != nil {
		panic(fmt.Sprintf("etcd: invariant broken: %q was a key and is none", canonical))
	}
	key.Source = t.source
	return key
}

func (t *tracker) hash(canonical string) uint64 { return maphash.String(t.seed, canonical) }
