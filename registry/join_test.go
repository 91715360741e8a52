package registry_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterdns/muster/registry"
)

// scripted is a Watcher that delivers what it is told to.
type scripted chan registry.Batch

func (s scripted) Watch(ctx context.Context, sink func(registry.Batch) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b, ok := <-s:
			if !ok {
				return errEnded
			}
			if err := sink(b); err != nil {
				return err
			}
		}
	}
}

var errEnded = errors.New("ended")

// named is instances of web by id.
func named(ids ...string) (list []registry.Instance) {
	for _, id := range ids {
		list = append(list, registry.Instance{Service: "web", ID: id})
	}
	return list
}

// told is a batch in short: "reset more +a -b =c ~key".
func told(b registry.Batch) string {
	var words []string
	if b.Reset {
		words = append(words, "reset")
	}
	if b.More {
		words = append(words, "more")
	}
	for _, i := range b.Instances {
		words = append(words, "+"+i.ID)
	}
	for _, r := range b.Routes {
		words = append(words, "+"+r.Name)
	}
	for _, n := range b.Notes {
		words = append(words, "+"+n.Key.Service)
	}
	for _, k := range b.Kept {
		words = append(words, "="+k.Name)
	}
	for _, k := range b.Deleted {
		words = append(words, "-"+cmp.Or(k.Name, k.Service))
	}
	for _, p := range b.Problems {
		words = append(words, "!"+p.RawKey)
	}
	for _, k := range b.Mended {
		words = append(words, "~"+k)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := make(scripted), make(scripted)
		var got []registry.Batch
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- registry.Join(one, two).Watch(ctx, func(b registry.Batch) error { got = append(got, b); return nil })
		}()
		expect := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			var told1 []string
			for _, b := range got {
				told1 = append(told1, told(b))
			}
			got = nil
			if !slices.Equal(told1, want) {
				t.Errorf("%s: %q, want %q", what, told1, want)
			}
		}
		at := func(s int) time.Time { return time.Unix(int64(s), 0) }

		one <- registry.Batch{Reset: true, More: true, Revision: 5, Instances: named("a")}
		one <- registry.Batch{Revision: 5, Instances: named("b"), AsOf: at(10)}
		one <- registry.Batch{Revision: 6, Instances: named("c"), Deleted: []registry.Key{{Kind: registry.KindInstance, Service: "web", Name: "a"}}}
		expect("one alone is not complete")
		two <- registry.Batch{Reset: true, Revision: 7, Instances: named("x"), Problems: []registry.Problem{{RawKey: "bad"}}, AsOf: at(12)}
		expect("both are, and then what changed meanwhile", "+a more reset", "+b more", "!bad +x", "+c -a")

		two <- registry.Batch{Revision: 8, Instances: named("y")}
		expect("a change is passed on", "+y")
		one <- registry.Batch{AsOf: at(20)}
		synctest.Wait()
		if len(got) != 1 || !got[0].AsOf.Equal(at(12)) || got[0].Revision != 8 {
			t.Errorf("the whole is as old as its oldest part, and does not go back: %+v", got)
		}
		got = nil

		one <- registry.Batch{Reset: true, More: true, Revision: 9, Instances: named("b")}
		expect("a later state waits for its end")
		one <- registry.Batch{Revision: 9, Instances: named("d")}
		expect("and is what differs", "+b +d -c")
		two <- registry.Batch{Reset: true, Revision: 9}
		expect("of its own part alone", "-x -y ~bad")

		route := registry.Key{Kind: registry.KindRoute, Name: "r"}
		two <- registry.Batch{Revision: 9, Routes: []registry.Route{{Name: "r"}}, Notes: []registry.Note{{Key: registry.Key{Kind: registry.KindService, Service: "n"}}}}
		expect("a route and a note", "+n +r")
		two <- registry.Batch{Reset: true, Revision: 9, Kept: []registry.Key{route}, Problems: []registry.Problem{{RawKey: "bad"}}}
		expect("of which the route cannot be read any more, and the note is gone", "!bad -n =r")
		two <- registry.Batch{Reset: true, Revision: 9}
		expect("and then both are gone", "-r ~bad")

		leased := named("l")
		leased[0].Leased = true
		one <- registry.Batch{Revision: 10, Instances: append(named("d"), leased...)}
		synctest.Wait()
		got = nil
		one <- registry.Batch{Reset: true, Revision: 11}
		synctest.Wait()
		if len(got) != 1 || len(got[0].Deleted) != 3 || len(got[0].Lost) != 1 || got[0].Lost[0].Name != "l" {
			t.Errorf("of what a later state lacks, that under a lease is lost: %+v", got)
		}

		close(one)
		if err := <-done; !errors.Is(err, errEnded) {
			t.Errorf("Watch returned %v, want what ended it", err)
		}
		cancel()
	})
}
