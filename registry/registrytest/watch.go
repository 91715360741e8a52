package registrytest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/musterdns/muster/registry"
)

func watchChanges(b *bench) {
	b.put("instances/web/a", `{"address":"10.0.0.1","port":80}`)
	b.put("services/web", `{"policy":"all","ttl":7}`)
	b.put("admin/web/*", `{"state":"drain","by":"me"}`)
	b.put("load/web/a", `{"load":0.5}`)
	b.put("members/ns1-x", `{"address":"10.0.0.9:8653"}`)
	b.put("routes/r", `{"path":"/api","service":"web"}`)
	b.put("health/web/a/ns1-x", `{"state":"failing","reason":"refused"}`)
	b.put("vips/10.0.0.1", `of another part`)
	r := b.record()
	r.Await("one record of each kind", func(s State) bool {
		return len(s.Instances) == 1 && len(s.Services) == 1 && len(s.Admin) == 1 && len(s.Loads) == 1 && len(s.Members) == 1 && len(s.Routes) == 1 &&
			len(s.Reports) == 1 && len(s.Problems) == 0 && !s.AsOf.IsZero()
	})
	first := r.State().Instances[instance("web", "a")]
	b.put("instances/web/a", `{"address":"10.0.0.2","port":80}`)
	r.Await("the instance changed", func(s State) bool {
		in := s.Instances[instance("web", "a")]
		return in.Addresses[0].String() == "10.0.0.2" && in.Incarnation == first.Incarnation && in.Revision > first.Revision
	})
	b.delete("instances/web/a")
	b.put("instances/web/a", `10.0.0.3:80`)
	r.Await("another life of the instance", func(s State) bool {
		in, ok := s.Instances[instance("web", "a")]
		return ok && in.Addresses[0].String() == "10.0.0.3" && in.Incarnation > first.Incarnation && !in.Leased
	})
	for _, key := range []string{"instances/web/a", "services/web", "admin/web/*", "load/web/a", "members/ns1-x", "routes/r", "health/web/a/ns1-x"} {
		b.delete(key)
	}
	r.Await("nothing is left", func(s State) bool {
		return len(s.Instances)+len(s.Services)+len(s.Admin)+len(s.Loads)+len(s.Members)+len(s.Routes)+len(s.Reports) == 0
	})
	if got := r.State().Resets; got != 1 {
		b.t.Errorf("%d complete states, want 1", got)
	}
}

func watchPages(b *bench) {
	const n = registry.PageMax + 345
	b.fill("large", n)
	r := b.record()
	r.Await("every instance", func(s State) bool { return len(s.Instances) == n })
}

func watchBad(b *bench) {
	bad := map[string]string{
		"instances/web/json":      `{"address":"10.0.0.1",`,
		"instances/web/type":      `{"address":"10.0.0.1","port":"x"}`,
		"instances/web/none":      `{"port":80}`,
		"instances/web/multicast": `224.0.0.1:80`,
		"instances/web/large":     `{"address":"10.0.0.1","meta":{"x":"` + strings.Repeat("x", registry.ValueMax) + `"}}`,
		"instances/web/deep":      `{"address":"10.0.0.1","x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
		"instances/web/un_der":    `10.0.0.1:80`,
		"instances/web/a/b":       `10.0.0.1:80`,
		"instances/web":           `10.0.0.1:80`,
		"instance/web/a":          `10.0.0.1:80`,
		"services/web":            `{"policy":"fastest"}`,
		"admin/web/a":             `{"state":"asleep"}`,
		"admin/web/b":             `{"state":"freeze"}`,
		"health/web/a":            `{"state":"passing"}`,
		"health/web/a/ns1":        `{"state":"ill"}`,
		"load/web/a":              `{"load":-1}`,
		"routes/r":                `{"path":"api","service":"web"}`,
		"instances/web/a\nforged": `10.0.0.1:80`,
	}
	for key, value := range bad {
		b.put(key, value)
	}
	b.put("instances/web/good", `10.0.0.1:80`)
	r := b.record()
	all := func(s State) bool { return len(s.Problems) == len(bad) && len(s.Instances) == 1 }
	r.Await("each bad key has its problem, and the good one is there", all)
	for key := range bad {
		problem, ok := r.State().Problems[b.prefix+"/"+key]
		if !ok || problem.Reason == "" || problem.Mend == "" {
			b.t.Errorf("%q: problem %+v, want a reason and a mend", key, problem)
		}
	}
	b.put("instances/web/json", `10.0.0.2:80`)
	b.delete("instances/web/type")
	r.Await("one is corrected and one deleted", func(s State) bool {
		return len(s.Problems) == len(bad)-2 && len(s.Instances) == 2
	})
}

// watchIgnored writes fields that are not known: the records are used, and told of.
func watchIgnored(b *bench) {
	b.put("instances/web/a", `{"address":"10.0.0.1","port":80,"wieght":3}`)
	b.put("services/web", `{"polcy":"hash"}`)
	b.put("members/ns1-x", `{"address":"10.0.0.9:8653","of_a_later_version":1}`)
	r := b.record()
	r.Await("both records, and what is passed over", func(s State) bool {
		return len(s.Instances) == 1 && len(s.Services) == 1 && len(s.Members) == 1 && len(s.Problems) == 2
	})
	for key, mend := range map[string]string{"instances/web/a": `did you mean "weight"?`, "services/web": `did you mean "policy"?`} {
		if p := r.State().Problems[b.prefix+"/"+key]; !p.Used || p.Mend != mend {
			b.t.Errorf("%s: problem %+v, want one of a record that is used, and %s", key, p, mend)
		}
	}
	used := func(problems int, used bool) func(State) bool {
		return func(s State) bool {
			return len(s.Problems) == problems && s.Problems[b.prefix+"/instances/web/a"].Used == used
		}
	}
	b.put("instances/web/a", `{"address":"10.0.0.1","port":80,"wieght":"x","weight":-1}`)
	r.Await("it cannot be used at all", used(2, false))
	b.put("instances/web/a", `{"address":"10.0.0.1","port":80,"prot":1}`)
	r.Await("it is used again", used(2, true))
	b.put("instances/web/a", `{"address":"10.0.0.1","port":80}`)
	b.delete("services/web")
	r.Await("nothing is passed over", func(s State) bool { return len(s.Problems) == 0 && len(s.Instances) == 1 })
}

func watchTurnsBad(b *bench) {
	b.put("instances/web/a", `10.0.0.1:80`)
	r := b.record()
	r.Await("the instance", func(s State) bool { return len(s.Instances) == 1 })
	b.put("instances/web/a", `10.0.0.1:99999`)
	r.Await("its end and its problem", func(s State) bool { return len(s.Instances) == 0 && len(s.Problems) == 1 })
	b.put("instances/web/a", `10.0.0.1:81`)
	r.Await("its return", func(s State) bool { return len(s.Instances) == 1 && len(s.Problems) == 0 })
	// A route stays as it was, whoever mistypes it.
	routed := func(service string, problems int) func(State) bool {
		return func(s State) bool {
			for _, route := range s.Routes {
				return len(s.Routes) == 1 && route.Service == service && len(s.Problems) == problems
			}
			return service == "" && len(s.Problems) == problems
		}
	}
	b.put("routes/r", `{"path":"/api","service":"web"}`)
	r.Await("the route", routed("web", 0))
	b.put("routes/r", `{"pathh":"/api","service":"api"}`)
	r.Await("its problem, and itself", routed("web", 1))
	b.put("routes/r", `{"path":"/api","service":"api"}`)
	r.Await("its change", routed("api", 0))
	b.put("routes/r", `{"path":"/api","service":""}`)
	r.Await("another problem", routed("api", 1))
	b.delete("routes/r")
	r.Await("its end", routed("", 0))
}

func watchFolds(b *bench) {
	is := func(address string, problems ...string) func(State) bool {
		return func(s State) bool {
			in, ok := s.Instances[instance("web", "a")]
			for _, key := range problems {
				if _, ok := s.Problems[b.prefix+"/"+key]; !ok {
					return false
				}
			}
			return ok && in.Addresses[0].String() == address && len(s.Problems) == len(problems)
		}
	}
	b.put("instances/WEB/A", `10.0.0.1:80`)
	b.put("instances/Web/A", `10.0.0.2:80`)
	r := b.record()
	r.Await("the first in byte order", is("10.0.0.1", "instances/Web/A"))
	b.put("instances/web/a", `10.0.0.3:80`)
	r.Await("that in lower case", is("10.0.0.3", "instances/WEB/A", "instances/Web/A"))
	late := Record(b.t, b.another(), id) // one that starts now agrees
	late.Await("the same from the list", is("10.0.0.3", "instances/WEB/A", "instances/Web/A"))
	b.delete("instances/web/a")
	r.Await("the first in byte order again", is("10.0.0.1", "instances/Web/A"))
	b.delete("instances/WEB/A")
	r.Await("the other", is("10.0.0.2"))
	b.delete("instances/Web/A")
	r.Await("none", func(s State) bool { return len(s.Instances)+len(s.Problems) == 0 })
}

// watchHostile is 10,000 hostile values among 1,000 good ones.
func watchHostile(b *bench) {
	const hostile, good = 10_000, 1_000
	values := []string{
		`{"address":"10.0.0.1\nserver up","port":80}`, `{"address":["10.0.0.1"]}`, `{"addresses":"10.0.0.1"}`,
		"\x00\x01\x02", "level=ERROR msg=forged\n", `{"address":"10.0.0.1","ttl":-1}`, `{"address":"10.0.0.1","weight":1e300}`,
		`{"address":"10.0.0.1","checks":[{"type":"exec"}]}`, `{"address":"10.0.0.1","tags":["a\u0000b"]}`, strings.Repeat("[", 10_000),
		`{"address":"10.0.0.1","port":9223372036854775808}`, "{\"address\":\"10.0.0.1\",\"region\":\"\xff\xfe\"}",
	}
	var ops []registry.Op
	for i := range hostile {
		ops = append(ops, registry.Op{Key: instance("web", fmt.Sprintf("h%d", i)), Value: []byte(values[i%len(values)])})
		if len(ops) == registry.OpsMax || i == hostile-1 {
			b.apply(ops...)
			ops = nil
		}
	}
	b.fill("web", good)
	r := b.record()
	r.Await("every good record", func(s State) bool { return len(s.Instances) == good && len(s.Problems) == hostile })
}

func watchAge(b *bench) {
	b.put("instances/web/a", `10.0.0.1:80`)
	r := b.record()
	r.Await("the state", func(s State) bool { return len(s.Instances) == 1 && !s.AsOf.IsZero() })
	b.store.Put(b.prefix+"-of-others", "x")
	written := time.Now()
	r.Await("a proof that is newer than what others wrote", func(s State) bool { return s.AsOf.After(written) })
	if got := r.State().Resets; got != 1 {
		b.t.Errorf("%d complete states, want 1", got)
	}
}

func watchSinkError(b *bench) {
	b.put("instances/web/a", `10.0.0.1:80`)
	want := errors.New("full")
	if err := b.source.Watch(b.ctx(), func(registry.Batch) error { return want }); !errors.Is(err, want) {
		b.t.Errorf("Watch returned %v, want the receiver's error", err)
	}
}

func watchDisconnect(b *bench) {
	if b.network == nil {
		return
	}
	b.put("instances/web/a", `10.0.0.1:80`)
	r := b.record()
	r.Await("the instance", func(s State) bool { return len(s.Instances) == 1 })
	b.network.Cut()
	b.put("instances/web/b", `10.0.0.2:80`)
	b.delete("instances/web/a")
	b.network.Heal()
	took := r.Await("what changed meanwhile", func(s State) bool {
		_, ok := s.Instances[instance("web", "b")]
		return ok && len(s.Instances) == 1
	})
	if took > 5*time.Second+Busy {
		b.t.Errorf("caught up after %s, want 5 s", took)
	}
	if got := r.State().Resets; got != 1 {
		b.t.Errorf("%d complete states, want 1: it can go on where it was", got)
	}
}

func watchCompaction(b *bench) {
	if b.network == nil {
		return
	}
	const n = 300
	b.fill("web", n)
	r := b.record()
	r.Await("the state", func(s State) bool { return len(s.Instances) == n })
	r.Mark()
	b.network.Cut()
	b.put("instances/web/i0", `10.9.9.9:80`)
	b.delete("instances/web/i1")
	for i := range 200 {
		b.put("load/web/i0", fmt.Sprintf(`{"load":%d}`, i))
	}
	b.store.Compact()
	b.network.Heal()
	took := r.Await("the state after the compaction", func(s State) bool {
		return s.Resets == 2 && len(s.Instances) == n-1 &&
			s.Instances[instance("web", "i0")].Addresses[0].String() == "10.9.9.9"
	})
	if took > 5*time.Second+Busy {
		b.t.Errorf("caught up after %s, want 5 s", took)
	}
	if r.Fewest() < n-1 {
		b.t.Errorf("there were only %d instances at a time", r.Fewest())
	}
}
