// Package registrytest is the conformance suite of sources: what package
// registry says of a Watcher, Writer, Reader and Holder, as tests that every
// source runs against every store it supports. It also has what such tests
// need: a Recorder, which is a receiver that holds each batch against the
// contract, and a Proxy, which is a network that fails on demand.
package registrytest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/musterdns/muster/registry"
)

// Source is what the suite asks of a source.
type Source interface {
	registry.Watcher
	registry.Writer
	registry.Reader
	registry.Holder
}

// Store is the store behind a source, reached past the source, as any other
// program would write to it. Its methods fail the test by themselves.
type Store interface {
	Put(key, value string)
	Delete(key string)
	// RevokeLease takes away the lease that a key is held under.
	RevokeLease(key string)
	// Compact forgets every revision before the present one.
	Compact()
}

// Harness makes sources and reaches what is behind them.
type Harness struct {
	// Source returns a new source of a prefix with a connection of its own
	// through network, which may be nil: the harness need not be able to fail.
	Source func(t *testing.T, id registry.SourceID, prefix string) (source Source, network *Proxy)
	Store  func(t *testing.T) Store
}

// id is the identity of every source of the suite.
const id = registry.SourceID(7)

// bench is what one test of the suite works with.
type bench struct {
	t       *testing.T
	source  Source
	network *Proxy
	store   Store
	prefix  string
	another func() Source // of the same prefix
}

func (h Harness) bench(t *testing.T) *bench {
	t.Helper()
	prefix := "/" + strings.NewReplacer(" ", "-", ",", "", "/", "-").Replace(t.Name())
	source, network := h.Source(t, id, prefix)
	return &bench{t: t, source: source, network: network, store: h.Store(t), prefix: prefix, another: func() Source {
		other, _ := h.Source(t, id, prefix)
		return other
	}}
}

func (b *bench) record() *Recorder { return Record(b.t, b.source, id) }

// put writes below the prefix.
func (b *bench) put(key, value string) { b.store.Put(b.prefix+"/"+key, value) }

func (b *bench) delete(key string) { b.store.Delete(b.prefix + "/" + key) }

func instance(service, name string) registry.Key {
	return registry.Key{Source: id, Kind: registry.KindInstance, Service: service, Name: name}
}

// fill writes n instances of one service through the source.
func (b *bench) fill(service string, n int) {
	b.t.Helper()
	for from := 0; from < n; from += registry.OpsMax {
		var ops []registry.Op
		for i := from; i < min(from+registry.OpsMax, n); i++ {
			value := fmt.Sprintf("10.%d.%d.%d:80", i>>16&255, i>>8&255, i&255)
			ops = append(ops, registry.Op{Key: instance(service, fmt.Sprintf("i%d", i)), Value: []byte(value)})
		}
		b.apply(ops...)
	}
}

// apply writes through the source.
func (b *bench) apply(ops ...registry.Op) int64 {
	b.t.Helper()
	revision, err := b.source.Apply(b.t.Context(), ops)
	if err != nil {
		b.t.Fatal(err)
	}
	return revision
}

// Run runs the suite. Its tests run in parallel; they share no prefix. A
// compaction is of the whole store, so its test runs alone, before the others.
func Run(t *testing.T, h Harness) {
	t.Run("Watch/is never empty when it lists again after a compaction", func(t *testing.T) {
		watchCompaction(h.bench(t))
	})
	tests := []struct {
		name string
		run  func(*bench)
	}{
		{"Watch/delivers the state and then each change", watchChanges},
		{"Watch/delivers a large state in pages", watchPages},
		{"Watch/skips a bad record alone until it is mended", watchBad},
		{"Watch/drops a record whose key turns bad", watchTurnsBad},
		{"Watch/tells of fields that are not known, and uses the record", watchIgnored},
		{"Watch/serves one of two keys that fold to one", watchFolds},
		{"Watch/serves every good record among hostile ones", watchHostile},
		{"Watch/proves its age while others write", watchAge},
		{"Watch/ends with the error of its receiver", watchSinkError},
		{"Watch/goes on after a disconnect", watchDisconnect},
		{"Apply/keeps its conditions and is all or nothing", applyConditions},
		{"Apply/leaves a record in its lease with KeepLease", applyKeepLease},
		{"Hold/keeps a record until it is closed", holdClose},
		{"Hold/leaves the record to who registers it next", holdSucceeded},
		{"Hold/tells a record that is deleted from one that is lost", holdTells},
		{"Apply/puts records under the lease of another", applyLease},
		{"Hold/makes a lost lease again", holdLost},
		{"Hold/loses the record with its connection and brings it back", holdExpires},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(h.bench(t))
		})
	}
}

// ctx is the test's context.
func (b *bench) ctx() context.Context { return b.t.Context() }
