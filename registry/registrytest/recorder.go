package registrytest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/musterdns/muster/registry"
)

const (
	// Busy is what the time that a source may take is longer by in a test: the
	// machine may be busy with others.
	Busy = 10 * time.Second
	// awaitMax is how long a state is waited for. It is longer than any source may
	// take, and shorter than a test run.
	awaitMax = time.Minute
)

// State is what a receiver of batches has, by key.
type State struct {
	Revision  int64
	AsOf      time.Time
	Resets    int // complete states received
	Instances map[registry.Key]registry.Instance
	Services  map[registry.Key]registry.Service
	Admin     map[registry.Key]registry.Admin
	Loads     map[registry.Key]registry.Load
	Members   map[registry.Key]registry.Member
	Routes    map[registry.Key]registry.Route
	Reports   map[registry.Key]registry.Report
	Problems  map[string]registry.Problem
	// Lost are the instances that went by their lease and are not back.
	Lost map[registry.Key]bool
}

func newState() State {
	return State{
		Instances: map[registry.Key]registry.Instance{}, Services: map[registry.Key]registry.Service{},
		Admin: map[registry.Key]registry.Admin{}, Loads: map[registry.Key]registry.Load{},
		Members: map[registry.Key]registry.Member{}, Routes: map[registry.Key]registry.Route{}, Problems: map[string]registry.Problem{},
		Reports: map[registry.Key]registry.Report{}, Lost: map[registry.Key]bool{},
	}
}

// Recorder is a receiver that keeps what it is sent as the contract of
// registry.Batch says, and fails the test when a batch breaks that contract.
type Recorder struct {
	t  testing.TB
	id registry.SourceID

	mu      sync.Mutex
	changed chan struct{} // closed and made anew at each batch
	state   State
	next    *State // a complete state of which pages are missing
	fewest  int    // instances at any time since the first state or Mark
}

// Record watches a source until the test ends.
func Record(t testing.TB, source registry.Watcher, id registry.SourceID) *Recorder {
	t.Helper()
	r := &Recorder{t: t, id: id, changed: make(chan struct{}), state: newState()}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		if err := source.Watch(ctx, r.sink); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v, want the context's error", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		watching.Wait()
	})
	return r
}

// Mark begins to count the fewest instances anew.
func (r *Recorder) Mark() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fewest = len(r.state.Instances)
}

// Fewest is the least number of instances there were since Mark.
func (r *Recorder) Fewest() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fewest
}

// Await waits until the state is as wanted and returns how long that took. want
// must not keep the state.
func (r *Recorder) Await(what string, want func(State) bool) time.Duration {
	r.t.Helper()
	begun, timeout := time.Now(), time.After(awaitMax)
	for {
		r.mu.Lock()
		ok, changed := want(r.state), r.changed
		r.mu.Unlock()
		if ok {
			return time.Since(begun)
		}
		select {
		case <-changed:
		case <-timeout:
			r.mu.Lock()
			state := r.state
			r.mu.Unlock()
			r.t.Fatalf("after %s still not: %s\nrevision %d, resets %d, %d instances, problems %v",
				awaitMax, what, state.Revision, state.Resets, len(state.Instances), state.Problems)
		}
	}
}

// State returns a copy of what there is.
func (r *Recorder) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.Instances, s.Services, s.Admin = maps.Clone(s.Instances), maps.Clone(s.Services), maps.Clone(s.Admin)
	s.Reports, s.Lost = maps.Clone(s.Reports), maps.Clone(s.Lost)
	s.Loads, s.Members, s.Routes, s.Problems = maps.Clone(s.Loads), maps.Clone(s.Members), maps.Clone(s.Routes), maps.Clone(s.Problems)
	return s
}

// sink takes in one batch.
func (r *Recorder) sink(b registry.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.check(&b); err != nil {
		r.t.Error(err)
	}
	switch {
	case b.Reset:
		next := newState()
		next.Resets = r.state.Resets + 1
		r.next = &next
	case r.next == nil && r.state.Resets == 0:
		r.t.Error("a change came before the first complete state")
	}
	if r.next != nil {
		r.next.take(&b)
		for _, k := range b.Kept {
			if v, there := r.state.Routes[k]; there {
				r.next.Routes[k] = v
			}
		}
		if !b.More {
			r.state, r.next = *r.next, nil
		}
	} else {
		r.state.take(&b)
	}
	r.fewest = min(r.fewest, len(r.state.Instances))
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// check holds a batch against the contract.
func (r *Recorder) check(b *registry.Batch) error {
	switch {
	case b.Source != r.id:
		return fmt.Errorf("a batch of source %d, want %d", b.Source, r.id)
	case r.next == nil && !b.Reset && b.Revision < r.state.Revision:
		return fmt.Errorf("revision %d after %d without a complete state", b.Revision, r.state.Revision)
	case b.More && r.next == nil && !b.Reset:
		return errors.New("a page of no complete state")
	case len(b.Instances)+len(b.Services)+len(b.Admin)+len(b.Loads)+len(b.Members)+len(b.Routes)+len(b.Reports) > registry.PageMax && (b.Reset || b.More):
		return errors.New("a page of more records than PageMax")
	}
	gone := make(map[registry.Key]bool)
	for _, k := range b.Deleted {
		if k.Source != r.id {
			return fmt.Errorf("a deleted key without its source: %+v", k)
		}
		gone[k] = true
	}
	for _, k := range b.Lost {
		if !gone[k] || k.Kind != registry.KindInstance {
			return fmt.Errorf("a lost key that is no deleted instance: %+v", k)
		}
	}
	for _, in := range b.Instances {
		if gone[registry.Key{Source: r.id, Kind: registry.KindInstance, Service: in.Service, Name: in.ID}] {
			return fmt.Errorf("%s/%s is both deleted and there", in.Service, in.ID)
		}
	}
	for _, p := range b.Problems {
		if p.RawKey == "" || p.Reason == "" || !printable(p.Reason) || !printable(p.Mend) {
			return fmt.Errorf("a problem that forges output or says nothing: %#v", p)
		}
	}
	return nil
}

func printable(s string) bool {
	for _, b := range []byte(s) {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}

// take applies a batch.
func (s *State) take(b *registry.Batch) {
	key := func(k registry.Kind, service, name string) registry.Key {
		return registry.Key{Source: b.Source, Kind: k, Service: service, Name: name}
	}
	for _, v := range b.Instances {
		s.Instances[key(registry.KindInstance, v.Service, v.ID)] = v
		delete(s.Lost, key(registry.KindInstance, v.Service, v.ID))
	}
	for _, v := range b.Services {
		s.Services[key(registry.KindService, v.Name, "")] = v
	}
	for _, v := range b.Admin {
		s.Admin[key(registry.KindAdmin, v.Service, v.Instance)] = v
	}
	for _, v := range b.Loads {
		s.Loads[key(registry.KindLoad, v.Service, v.Instance)] = v
	}
	for _, v := range b.Members {
		s.Members[key(registry.KindMember, "", v.Name)] = v
	}
	for _, v := range b.Routes {
		s.Routes[key(registry.KindRoute, "", v.Name)] = v
	}
	for _, v := range b.Reports {
		k := key(registry.KindHealth, v.Service, v.Instance)
		k.Sub = v.Checker
		s.Reports[k] = v
	}
	for _, k := range b.Lost {
		s.Lost[k] = true
	}
	for _, k := range b.Deleted {
		delete(s.Reports, k)
		delete(s.Instances, k)
		delete(s.Services, k)
		delete(s.Admin, k)
		delete(s.Loads, k)
		delete(s.Members, k)
		delete(s.Routes, k)
	}
	for _, p := range b.Problems {
		s.Problems[p.RawKey] = p
	}
	for _, raw := range b.Mended {
		delete(s.Problems, raw)
	}
	s.Revision = b.Revision
	if !b.AsOf.IsZero() {
		s.AsOf = b.AsOf
	}
}
