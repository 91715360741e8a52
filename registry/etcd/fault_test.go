package etcd_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/etcd"
	"github.com/musterdns/muster/registry/registrytest"
)

const prefix = registry.DefaultPrefix

// has reports whether there are exactly the named instances of web.
func has(names ...string) func(registrytest.State) bool {
	return func(s registrytest.State) bool {
		for _, name := range names {
			if _, ok := s.Instances[registry.Key{Source: 1, Kind: registry.KindInstance, Service: "web", Name: name}]; !ok {
				return false
			}
		}
		return len(s.Instances) == len(names)
	}
}

// TestSource_Watch holds the source to what FAULTS.md asks of it when servers
// stop, go back and are cut off.
func TestSource_Watch(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name+"/keeps the state while etcd is away and catches up", func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			url, stop := b.start(t, dir, "127.0.0.1:0")
			conn := connect(t, url)
			store{t, conn}.Put(prefix+"/instances/web/a", "10.0.0.1:80")
			network := registrytest.NewProxy(t, host(url))
			source := newSource(t, 1, prefix, "http://"+network.Addr())
			r := registrytest.Record(t, source, 1)
			r.Await("the state", has("a"))
			stop()
			url, _ = b.start(t, dir, "127.0.0.1:0")
			network.Retarget(host(url))
			store{t, connect(t, url)}.Put(prefix+"/instances/web/b", "10.0.0.2:80")
			if took := r.Await("what came after the restart", has("a", "b")); took > 5*time.Second+registrytest.Busy {
				t.Errorf("caught up %s after etcd answered, want 5 s", took)
			}
			if resets := r.State().Resets; resets != 1 {
				t.Errorf("%d complete states, want 1", resets)
			}
		})
		t.Run(b.name+"/reads the state again when the store went back", func(t *testing.T) {
			t.Parallel()
			dir, backup := t.TempDir(), t.TempDir()
			url, stop := b.start(t, dir, "127.0.0.1:0")
			store{t, connect(t, url)}.Put(prefix+"/instances/web/old", "10.0.0.1:80")
			stop()
			if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			url, stop = b.start(t, dir, "127.0.0.1:0")
			conn := connect(t, url)
			for i := range 20 {
				store{t, conn}.Put(prefix+"/instances/web/new", fmt.Sprintf("10.0.0.%d:80", i+2))
			}
			network := registrytest.NewProxy(t, host(url))
			source := newSource(t, 1, prefix, "http://"+network.Addr())
			r := registrytest.Record(t, source, 1)
			r.Await("the state before", has("old", "new"))
			stop()
			url, _ = b.start(t, backup, "127.0.0.1:0")
			connect(t, url)
			network.Retarget(host(url))
			if took := r.Await("the state that was restored", has("old")); took > 10*time.Second+registrytest.Busy {
				t.Errorf("took %s, want 10 s", took)
			}
			if source.Stats().Rollbacks != 1 {
				t.Errorf("stats %+v, want one rollback", source.Stats())
			}
			store{t, connect(t, url)}.Put(prefix+"/instances/web/next", "10.0.0.9:80")
			r.Await("the watch is not stuck", has("old", "next"))
		})
		t.Run(b.name+"/reads the state again when the store went back and is ahead by now", func(t *testing.T) {
			t.Parallel()
			for _, last := range []struct {
				name   string
				change func(store)
				before []string
			}{
				{"put", func(s store) { s.Put(prefix+"/instances/web/new", "10.0.0.3:80") }, []string{"old", "gone", "new"}},
				{"deletion", func(s store) { s.Delete(prefix + "/instances/web/gone") }, []string{"old"}},
			} {
				t.Run("last a "+last.name, func(t *testing.T) { overtaken(t, b, last.change, last.before) })
			}
		})
		t.Run(b.name+"/finds etcd when it starts late", func(t *testing.T) {
			t.Parallel()
			network := registrytest.NewProxy(t, "")
			r := registrytest.Record(t, newSource(t, 1, prefix, "http://"+network.Addr()), 1)
			url, _ := b.start(t, t.TempDir(), "127.0.0.1:0")
			connect(t, url)
			network.Retarget(host(url))
			if took := r.Await("the state", func(s registrytest.State) bool { return s.Resets == 1 }); took > 5*time.Second+registrytest.Busy {
				t.Errorf("took %s, want 5 s", took)
			}
		})
	}
	t.Run("leaves members that are cut off without closing connections", func(t *testing.T) {
		t.Parallel()
		conn, networks, urls := threeNetworks(t)
		store{t, conn}.Put(prefix+"/instances/web/a", "10.0.0.1:80")
		r := registrytest.Record(t, newSource(t, 1, prefix, urls...), 1)
		r.Await("the state", has("a"))
		// Whichever member is being watched, in two of three cases it is cut off.
		networks[0].Stall()
		networks[1].Stall()
		store{t, conn}.Put(prefix+"/instances/web/b", "10.0.0.2:80")
		took := r.Await("the update", has("a", "b"))
		t.Logf("visible after %s", took)
		if took > 10*time.Second+registrytest.Busy {
			t.Errorf("the update took %s, want 10 s", took)
		}
		if resets := r.State().Resets; resets != 1 {
			t.Errorf("%d complete states, want 1", resets)
		}
	})
}

// overtaken restores a store to before its last change, writes until its revision is
// beyond that one, and only then, between two proofs, puts it into the old one's place:
// neither the revision nor the term nor the cluster's identity tells that it went back,
// and the watch goes on there by itself.
func overtaken(t *testing.T, b backend, change func(store), before []string) {
	t.Helper()
	t.Parallel()
	dir, backup := t.TempDir(), t.TempDir()
	url, stop := b.start(t, dir, "127.0.0.1:0")
	s := store{t, connect(t, url)}
	s.Put(prefix+"/instances/web/old", "10.0.0.1:80")
	s.Put(prefix+"/instances/web/gone", "10.0.0.2:80")
	stop()
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	url, _ = b.start(t, dir, "127.0.0.1:0")
	network := registrytest.NewProxy(t, host(url))
	source := newSource(t, 1, prefix, "http://"+network.Addr())
	r := registrytest.Record(t, source, 1)
	r.Await("the backup", has("old", "gone"))
	change(store{t, connect(t, url)})
	r.Await("the state before", has(before...))

	url, _ = b.start(t, backup, "127.0.0.1:0")
	s = store{t, connect(t, url)}
	for range 20 {
		s.Put(prefix+"/instances/web/else", "10.0.0.9:80")
	}
	network.Retarget(host(url))
	restored, mixed := has("old", "gone", "else"), false
	took := r.Await("the state that is there", func(s registrytest.State) bool {
		_, news := s.Instances[registry.Key{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "else"}]
		mixed = mixed || news && !restored(s)
		return restored(s)
	})
	if mixed {
		t.Error("what came after the backup was mixed with what it lacks")
	}
	if took > 10*time.Second+registrytest.Busy {
		t.Errorf("took %s, want 10 s", took)
	}
	if source.Stats().Rollbacks != 1 {
		t.Errorf("stats %+v, want one rollback", source.Stats())
	}
}

// threeNetworks starts a cluster of three of Debian's etcd, each behind a network, of
// which urls are the ends. conn goes around them.
func threeNetworks(t *testing.T) (conn *clientv3.Client, networks []*registrytest.Proxy, urls []string) {
	t.Helper()
	var peers, parts, members []string
	for i := range 3 {
		peer := "http://" + registrytest.FreeAddr(t)
		peers, parts = append(peers, peer), append(parts, fmt.Sprintf("m%d=%s", i, peer))
	}
	for i := range 3 {
		url, _ := startChild(t, t.TempDir(), "127.0.0.1:0", peers[i], strings.Join(parts, ","), fmt.Sprintf("m%d", i))
		network := registrytest.NewProxy(t, host(url))
		members, networks, urls = append(members, url), append(networks, network), append(urls, "http://"+network.Addr())
	}
	return connect(t, members...), networks, urls
}

// A lease is kept while two of three members are cut off without their connections
// ending, whichever has renewed it before.
func TestSource_Hold_MembersCutOff(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second
	conn, networks, urls := threeNetworks(t)
	source := newSource(t, 1, prefix, urls...)
	key := registry.Key{Source: 1, Kind: registry.KindInstance, Service: "web", Name: "a"}
	lease, err := source.Hold(t.Context(), key, []byte("10.0.0.1:80"), ttl)
	if err != nil {
		t.Fatal(err)
	}
	for away := range networks {
		for i, network := range networks {
			if i != away {
				network.Stall()
			}
		}
		gone := conn.Watch(t.Context(), prefix+"/instances/web/a")
		select {
		case <-lease.Lost():
			t.Errorf("the lease was lost while only member %d was there", away)
		case ev := <-gone:
			t.Errorf("the record was changed while only member %d was there: %v", away, ev.Events)
		case <-time.After(2 * ttl):
		}
		for _, network := range networks {
			network.Heal()
		}
	}
	if err := lease.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSource_HoldMember holds two members of one name.
func TestSource_HoldMember(t *testing.T) {
	url, _ := startEmbedded(t, "", "127.0.0.1:0")
	source := newSource(t, 1, prefix, url)
	var leases []registry.Lease
	names := map[string]bool{}
	for range 2 {
		member := registry.Member{Name: etcd.NewMemberName("Host_1.example.com"), Address: "http://10.0.0.5:8653", Version: "1.0"}
		lease, err := source.HoldMember(t.Context(), member, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		leases, names[member.Name] = append(leases, lease), true
		if !strings.HasPrefix(member.Name, "host-1-") {
			t.Errorf("named %q", member.Name)
		}
	}
	if len(names) != 2 {
		t.Errorf("two members are named %v", names)
	}
	r := registrytest.Record(t, source, 1)
	r.Await("both members", func(s registrytest.State) bool { return len(s.Members) == 2 && len(s.Problems) == 0 })
	for _, lease := range leases {
		if err := lease.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	r.Await("neither", func(s registrytest.State) bool { return len(s.Members) == 0 })
}

// TestSource_Register registers as a program written in Go does.
func TestSource_Register(t *testing.T) {
	url, _ := startEmbedded(t, "", "127.0.0.1:0")
	source := newSource(t, 1, prefix, url)
	if _, err := source.Register(t.Context(), registry.Instance{Service: "web", ID: "a"}, time.Minute); err == nil {
		t.Error("an instance without an address was registered")
	}
	in, err := registry.DecodeInstance("web", "a", []byte("10.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	lease, err := source.Register(t.Context(), in, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	r := registrytest.Record(t, source, 1)
	r.Await("the instance", has("a"))
	if err := lease.Close(t.Context()); err != nil {
		t.Error(err)
	}
	r.Await("its end", has())
}

// TestNew names what is wrong with a configuration.
func TestNew(t *testing.T) {
	empty := t.TempDir() + "/empty"
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		cfg  etcd.Config
		want string
	}{
		{"no endpoint", etcd.Config{}, "endpoints"},
		{"no URL", etcd.Config{Endpoints: []string{"127.0.0.1:2379"}}, `"127.0.0.1:2379"`},
		{"no port", etcd.Config{Endpoints: []string{"http://127.0.0.1"}}, "port"},
		{"http to another machine", etcd.Config{Endpoints: []string{"http://10.0.0.1:2379"}}, "https"},
		{"http and https", etcd.Config{Endpoints: []string{"http://127.0.0.1:1", "https://127.0.0.1:2"}}, "all of them"},
		{"certificates for http", etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}, CAFile: empty}, "certificates"},
		{"a user without a password", etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}, Username: "u"}, "password_file"},
		{"an empty password file", etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}, Username: "u", PasswordFile: empty}, "password_file"},
		{"a CA file without a certificate", etcd.Config{Endpoints: []string{"https://10.0.0.1:1"}, CAFile: empty}, "ca"},
		{"a certificate without its key", etcd.Config{Endpoints: []string{"https://10.0.0.1:1"}, CertFile: empty}, "key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := etcd.New(test.cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
	t.Run("http to another machine with insecure", func(t *testing.T) {
		if _, err := etcd.New(etcd.Config{Endpoints: []string{"http://10.0.0.1:2379"}, Insecure: true}); err != nil {
			t.Error(err)
		}
	})
}
