package registry

import (
	"context"
	"sync"
	"time"
)

// Join returns a Watcher of what several deliver, as one source: each delivers
// other keys than the rest. Its first state is complete when all of theirs are.
// A later state of one of them is delivered as changes. It keeps the keys of
// all that it has delivered.
func Join(watchers ...Watcher) Watcher { return joined(watchers) }

type joined []Watcher

// Watch implements Watcher.
func (j joined) Watch(ctx context.Context, sink func(Batch) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := &merger{sink: sink, parts: make([]part, len(j))}
	var running sync.WaitGroup
	for i, w := range j {
		running.Go(func() {
			cancel(w.Watch(ctx, func(b Batch) error { return m.take(&m.parts[i], b) }))
		})
	}
	running.Wait()
	return context.Cause(ctx) // of the first that ended, since that ends the others
}

// merger makes the batches of several into those of one.
type merger struct {
	mu    sync.Mutex
	sink  func(Batch) error
	parts []part
	whole bool // the first state was delivered
	// revision is the greatest that was delivered.
	revision int64
}

// part is what is known of one of the watchers.
type part struct {
	keys  map[Key]bool        // of the records delivered; true: an instance under a lease
	bad   map[string]struct{} // RawKeys of the problems
	state []Batch             // pages of a complete state that is not delivered yet
	later []Batch             // changes since the first state, while others still list
	done  bool                // the first state is complete
	asOf  time.Time
}

// take takes one batch of a part.
func (m *merger) take(p *part, b Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b.AsOf.After(p.asOf) {
		p.asOf = b.AsOf
	}
	switch {
	case b.Reset || len(p.state) > 0 && !p.done:
		if b.Reset {
			p.state, p.later, p.done = nil, nil, false
		}
		p.state = append(p.state, b.kept())
		if b.More {
			return nil
		}
		p.done = true
		if m.whole {
			b = p.difference()
			p.note(&b)
			return m.deliver(b)
		}
		return m.begin()
	case !m.whole:
		p.later = append(p.later, b.kept())
		return nil
	}
	p.note(&b)
	return m.deliver(b)
}

// begin delivers the first state when every part has one.
func (m *merger) begin() error {
	var pages, later []Batch
	for i := range m.parts {
		if !m.parts[i].done {
			return nil
		}
	}
	for i := range m.parts {
		p := &m.parts[i]
		pages, later = append(pages, p.state...), append(later, p.later...)
		p.keys, p.bad = map[Key]bool{}, map[string]struct{}{}
		for _, list := range [][]Batch{p.state, p.later} {
			for k := range list {
				p.note(&list[k])
			}
		}
		p.state, p.later = nil, nil
	}
	m.whole = true
	for i, b := range pages {
		b.Reset, b.More = i == 0, i < len(pages)-1
		if err := m.deliver(b); err != nil {
			return err
		}
	}
	for _, b := range later {
		if err := m.deliver(b); err != nil {
			return err
		}
	}
	return nil
}

// kept is b for keeping beyond the call that brought it.
func (b *Batch) kept() Batch {
	c := Batch{Reset: b.Reset, More: b.More, AsOf: b.AsOf, Snapshot: b.Snapshot}
	c.add(b)
	return c
}

// deliver sends a batch on. What all parts together say is as old as the oldest
// of them.
func (m *merger) deliver(b Batch) error {
	m.revision = max(m.revision, b.Revision)
	b.Revision = m.revision
	b.AsOf = m.parts[0].asOf
	for i := range m.parts {
		if m.parts[i].asOf.Before(b.AsOf) {
			b.AsOf = m.parts[i].asOf
		}
	}
	return m.sink(b)
}

// difference makes a complete state into what differs from what was delivered.
func (p *part) difference() Batch {
	out := Batch{}
	there, bad := map[Key]struct{}{}, map[string]struct{}{}
	for i := range p.state {
		b := &p.state[i]
		b.eachKey(func(k Key) { there[k] = struct{}{} })
		for _, k := range b.Kept {
			there[k] = struct{}{}
		}
		for _, problem := range b.Problems {
			bad[problem.RawKey] = struct{}{}
		}
		out.add(b)
	}
	for k, leased := range p.keys {
		if _, ok := there[k]; !ok {
			out.Deleted = append(out.Deleted, k)
			if leased { // nobody saw how it went
				out.Lost = append(out.Lost, k)
			}
		}
	}
	for raw := range p.bad {
		if _, ok := bad[raw]; !ok {
			out.Mended = append(out.Mended, raw)
		}
	}
	p.state = nil
	return out
}

// add appends what a page holds.
func (b *Batch) add(page *Batch) {
	b.Source, b.Revision = page.Source, page.Revision
	b.Instances = append(b.Instances, page.Instances...)
	b.Services = append(b.Services, page.Services...)
	b.Admin = append(b.Admin, page.Admin...)
	b.Loads = append(b.Loads, page.Loads...)
	b.Members = append(b.Members, page.Members...)
	b.Routes = append(b.Routes, page.Routes...)
	b.Reports = append(b.Reports, page.Reports...)
	b.Notes = append(b.Notes, page.Notes...)
	b.Deleted = append(b.Deleted, page.Deleted...)
	b.Lost = append(b.Lost, page.Lost...)
	b.Kept = append(b.Kept, page.Kept...)
	b.Problems = append(b.Problems, page.Problems...)
	b.Mended = append(b.Mended, page.Mended...)
}

// note keeps the keys that a batch adds and takes away.
func (p *part) note(b *Batch) {
	b.eachKey(func(k Key) { p.keys[k] = false })
	for i := range b.Instances {
		in := &b.Instances[i]
		p.keys[Key{Source: b.Source, Kind: KindInstance, Service: in.Service, Name: in.ID}] = in.Leased
	}
	for _, k := range b.Deleted {
		delete(p.keys, k)
	}
	for _, problem := range b.Problems {
		p.bad[problem.RawKey] = struct{}{}
	}
	for _, raw := range b.Mended {
		delete(p.bad, raw)
	}
}

// eachKey yields the key of every record in the batch.
func (b *Batch) eachKey(yield func(Key)) {
	for i := range b.Instances {
		yield(Key{Source: b.Source, Kind: KindInstance, Service: b.Instances[i].Service, Name: b.Instances[i].ID})
	}
	for i := range b.Services {
		yield(Key{Source: b.Source, Kind: KindService, Service: b.Services[i].Name})
	}
	for i := range b.Admin {
		yield(Key{Source: b.Source, Kind: KindAdmin, Service: b.Admin[i].Service, Name: b.Admin[i].Instance})
	}
	for i := range b.Loads {
		yield(Key{Source: b.Source, Kind: KindLoad, Service: b.Loads[i].Service, Name: b.Loads[i].Instance})
	}
	for i := range b.Members {
		yield(Key{Source: b.Source, Kind: KindMember, Name: b.Members[i].Name})
	}
	for i := range b.Routes {
		yield(Key{Source: b.Source, Kind: KindRoute, Name: b.Routes[i].Name})
	}
	for i := range b.Notes {
		yield(b.Notes[i].Key)
	}
	for i := range b.Reports {
		yield(Key{Source: b.Source, Kind: KindHealth, Service: b.Reports[i].Service, Name: b.Reports[i].Instance, Sub: b.Reports[i].Checker})
	}
}
