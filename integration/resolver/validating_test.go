package resolver_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// How long the resolvers of the world keep anything at most, so that what takes hours, the
// roll of a key, takes seconds: as they are configured, and PowerDNS's, which takes less for
// this.
const (
	resolverTTL = 2 * time.Second
	powerTTL    = 15 * time.Second
)

// validator is a validating resolver that knows the root's key alone.
type validator struct {
	name, addr string
	keeps      time.Duration
	p          *program.Process
}

// validators starts the resolvers, each with what makes it hardest: names in small steps
// (RFC 9156), letters in random case, negative answers from NSEC records that it has
// (RFC 8198), small datagrams.
func (w *world) validators() []*validator {
	key := strings.Fields(w.keys(".", "list")) // . IN DNSKEY 257 3 ALGORITHM KEY ; ...
	ds := strings.Fields(w.ds["."])            // . IN DS TAG ALGORITHM TYPE DIGEST
	hints := w.lab.Path("hints")
	var all []*validator
	add := func(name, host string, argv ...string) {
		p, err := w.lab.Start(name, argv...)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, &validator{name: name, addr: net.JoinHostPort(host, "53"), keeps: resolverTTL, p: p})
	}
	dir := func(name string) string {
		d := w.lab.Path(name)
		if err := os.Mkdir(d, 0o700); err != nil {
			w.t.Fatal(err)
		}
		return d
	}
	for host := range 5 { // BIND listens at addresses of interfaces alone
		w.command(find(w.t, "ip", "iproute2"), "address", "add", fmt.Sprintf("127.0.1.%d/32", host+1), "dev", "lo")
	}
	ttl := strconv.Itoa(int(resolverTTL / time.Second))

	const strict = "    aggressive-nsec: yes\n    qname-minimisation: yes\n    qname-minimisation-strict: yes\n    use-caps-for-id: yes\n    edns-buffer-size: 1232\n    harden-below-nxdomain: yes\n"
	const small = "    aggressive-nsec: yes\n    qname-minimisation: no\n    edns-buffer-size: 512\n    harden-referral-path: yes\n"
	for host, more := range map[string]string{"127.0.1.1": strict, "127.0.1.2": small} {
		d := dir("unbound" + host)
		conf := filepath.Join(d, "unbound.conf")
		write(w.t, conf, fmt.Sprintf("server:\n    interface: %s@53\n    directory: %q\n    do-daemonize: no\n    use-syslog: no\n    chroot: \"\"\n    username: \"\"\n    pidfile: \"\"\n    num-threads: 1\n"+
			"    root-hints: %q\n    trust-anchor: %q\n    module-config: \"validator iterator\"\n    cache-max-ttl: %s\n    cache-max-negative-ttl: %s\n%sremote-control:\n    control-enable: no\n",
			host, d, hints, strings.Join(key[:7], " "), ttl, ttl, more))
		add(map[bool]string{true: "unbound", false: "unbound of 512 octets"}[host == "127.0.1.1"], host, find(w.t, "unbound", "unbound"), "-d", "-c", conf)
	}

	d := dir("named")
	conf := filepath.Join(d, "named.conf")
	write(w.t, conf, fmt.Sprintf("options { directory %q; listen-on port 53 { 127.0.1.3; }; listen-on-v6 { none; }; pid-file none; dnssec-validation yes; qname-minimization strict;\n"+
		"synth-from-dnssec yes; edns-udp-size 512; max-cache-ttl %s; max-ncache-ttl %s; recursion yes; empty-zones-enable no; session-keyfile none; managed-keys-directory %q; };\n"+
		"controls {};\nzone \".\" { type hint; file %q; };\ntrust-anchors { . static-key %s %s %s %q; };\n", d, ttl, ttl, d, hints, key[3], key[4], key[5], key[6]))
	add("BIND", "127.0.1.3", find(w.t, "named", "bind9"), "-g", "-n", "1", "-c", conf)

	d = dir("kresd")
	conf = filepath.Join(d, "kresd.conf")
	write(w.t, conf, fmt.Sprintf("net.listen('127.0.1.4', 53, {kind = 'dns'})\nmodules.load('hints > iterate')\nmodules.unload('ta_update')\nmodules.unload('ta_signal_query')\nmodules.unload('detect_time_skew')\n"+
		"cache.size = 10*MB\ncache.min_ttl(0)\ncache.max_ttl(%s)\nhints.root_file(%q)\ntrust_anchors.remove('.')\ntrust_anchors.add(%q)\n", ttl, hints, strings.Join(ds[:7], " ")))
	add("Knot Resolver", "127.0.1.4", find(w.t, "kresd", "knot-resolver"), "-n", "-c", conf, d)

	d = dir("pdns")
	write(w.t, filepath.Join(d, "ta.lua"), fmt.Sprintf("clearTA('.')\naddTA('.', %q)\n", strings.Join(ds[3:7], " ")))
	add("PowerDNS Recursor", "127.0.1.5", find(w.t, "pdns_recursor", "pdns-recursor"), "--config-dir="+d, "--socket-dir="+d, "--daemon=no", "--write-pid=no", "--setuid=", "--setgid=",
		"--local-address=127.0.1.5", "--local-port=53", "--threads=1", "--hint-file="+hints, "--dnssec=validate", "--lua-config-file="+filepath.Join(d, "ta.lua"),
		"--max-cache-ttl="+ttl, "--max-negative-ttl="+ttl, "--packetcache-ttl=1", "--edns-outgoing-bufsize=512", "--aggressive-nsec-cache-size=10000", "--quiet=yes")
	all[len(all)-1].keeps = powerTTL
	for _, v := range all {
		ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
		err := v.p.Poll(ctx, func() error {
			r, err := v.ask(ctx, "city.", dns.TypeSOA)
			if err == nil && !r.AuthenticatedData {
				err = fmt.Errorf("not authenticated: %s", r)
			}
			return err
		})
		cancel()
		if err != nil {
			w.t.Fatalf("%s: %v\n%s", v.name, err, v.p.Output())
		}
	}
	return all
}

// ask asks once. No answer in time is an error, whatever answer there is is none.
func (v *validator) ask(ctx context.Context, name string, typ uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(name, typ)
	m.SetEdns0(4096, true)
	r, _, err := (&dns.Client{Timeout: 5 * time.Second}).ExchangeContext(ctx, m, v.addr)
	return r, err
}

// askedOf is asked of every resolver all the time; # stands for a number that nobody has
// asked for before. There: it has records, always.
var askedOf = []struct {
	name  string
	typ   uint16
	there bool
}{
	{"web.live.city.", dns.TypeA, true},
	{"n#.live.city.", dns.TypeA, false},
	{"wea#.live.city.", dns.TypeAAAA, false},
	{"web.live.city.", dns.TypeMX, false},
	{"web.live.city.", dns.TypeNSEC, true},
	{"n#.live.city.", dns.TypeNSEC, true},
	{"web.live.city.", dns.TypeA, true},
	{"stable.web.live.city.", dns.TypeA, true},
	{"_tcp.web.live.city.", dns.TypeA, false},
	{"_http._tcp.web.live.city.", dns.TypeSRV, true},
	{"_tag.web.live.city.", dns.TypeTXT, false},
	{"v2._tag.web.live.city.", dns.TypeA, true},
	{"_hash.web.live.city.", dns.TypeA, false},
	{"k#._hash.web.live.city.", dns.TypeA, true},
	{"_http._tcp.live.city.", dns.TypePTR, true},
	{"live.city.", dns.TypeA, false},
	{"live.city.", dns.TypeNS, true},
	{"live.city.", dns.TypeSOA, true},
	{"live.city.", dns.TypeDNSKEY, true},
	{"ns1.live.city.", dns.TypeAAAA, true},
	{"www.still.city.", dns.TypeA, true},
	{"n#.still.city.", dns.TypeA, false},
	{"chain.still.city.", dns.TypeA, true},
	{"w#.wild.still.city.", dns.TypeA, true},
	{"w#.wild.still.city.", dns.TypeTXT, false},
	{"b.ent.still.city.", dns.TypeA, false},
	{"a.b.ent.still.city.", dns.TypeTXT, true},
}

// seen is what a resolver has answered.
type seen struct {
	asked int
	wrong map[string]int // questions, and how often
	first []string       // the first wrong answers
}

// watch asks a resolver until done is closed, some 200 times a second.
func (v *validator) watch(ctx context.Context, done <-chan struct{}) *seen {
	s := &seen{wrong: map[string]int{}}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for round := 0; ; round++ {
		for i, q := range askedOf {
			select {
			case <-done:
				return s
			case <-tick.C:
			}
			v.see(ctx, s, strings.ReplaceAll(q.name, "#", fmt.Sprintf("%d-%d", round, i)), q.name, q.typ, q.there, !q.there)
			// One that comes and goes.
			v.see(ctx, s, fmt.Sprintf("f%d.web.live.city.", round%20), "f#.web.live.city.", dns.TypeA, false, false)
		}
	}
}

// see asks once. What the question is of there must be, must not be, or may be.
func (v *validator) see(ctx context.Context, s *seen, name, of string, typ uint16, there, absent bool) {
	r, err := v.ask(ctx, name, typ)
	if err != nil {
		return // a busy machine; it has not said that it could not find out
	}
	s.asked++
	has := slices.ContainsFunc(r.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == typ })
	if (r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNameError && !there) && (has || !there) && (!has || !absent) && r.AuthenticatedData {
		return
	}
	s.wrong[of+" "+dns.TypeToString[typ]]++
	if len(s.first) < 3 {
		s.first = append(s.first, fmt.Sprintf("%s:\n%s", time.Now().Format(time.TimeOnly), r))
	}
}

// TestValidators_believeAllOfAChangingZone has validating resolvers ask for names of a
// signed service zone that changes ten times a second while its key is rolled, and of a
// static one. None may fail, or deny what is there. It takes ten seconds and what the roll
// takes, or what VALIDATE_SECONDS says: from 60 on PowerDNS's, too, sees the key's end.
func TestValidators_believeAllOfAChangingZone(t *testing.T) {
	seconds := 10
	if s := os.Getenv("VALIDATE_SECONDS"); s != "" {
		var err error
		if seconds, err = strconv.Atoi(s); err != nil {
			t.Fatalf("VALIDATE_SECONDS: %v", err)
		}
	}
	inWorld(t, time.Duration(seconds)*time.Second+4*time.Minute, func(w *world) {
		for i, id := range []string{"stable", "other", "third"} {
			if err := w.register(t.Context(), liveSigned, "web", id, fmt.Sprintf("10.9.0.%d", i+1)); err != nil {
				t.Fatal(err)
			}
		}
		all := w.validators()
		enough := time.After(time.Duration(seconds) * time.Second)
		done, rolling := make(chan struct{}), make(chan struct{})
		keeps := resolverTTL
		if seconds >= 60 {
			keeps = powerTTL
		}
		var running sync.WaitGroup
		for _, v := range all {
			running.Go(func() {
				until := done
				if v.keeps > keeps {
					until = rolling // it would go by keys that are too old
				}
				s := v.watch(t.Context(), until)
				t.Logf("%s answered %d questions", v.name, s.asked)
				if len(s.wrong) > 0 || s.asked < len(askedOf) {
					t.Errorf("%s: %d answers, wrong were those to %v, the first:\n%s", v.name, s.asked, s.wrong, strings.Join(s.first, "\n"))
				}
			})
		}
		running.Go(func() { w.change(done) })
		w.comes(all)
		w.roll(keeps, rolling)
		<-enough
		close(done)
		running.Wait()
	})
}

// change changes live.city. ten times a second.
func (w *world) change(done <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-done:
			w.t.Logf("%d changes", n)
			return
		case <-tick.C:
		}
		id := fmt.Sprintf("f%d", n%20)
		put := func() error { return w.register(w.t.Context(), liveSigned, "web", id, fmt.Sprintf("10.9.1.%d", n%20)) }
		if n/20%2 == 1 {
			put = func() error { return w.deregister(w.t.Context(), liveSigned, "web", id) }
		}
		if err := put(); err != nil {
			w.t.Error(err)
			return
		}
	}
}

// comes has every resolver deny a name, which then comes: what is kept of the denial
// must not hide it for longer than the zone's negative TTL.
func (w *world) comes(all []*validator) {
	w.t.Helper()
	const name = "late.web.live.city."
	for _, v := range all {
		r, err := v.ask(w.t.Context(), name, dns.TypeA)
		if err != nil || len(r.Answer) > 0 && r.Answer[0].Header().Rrtype == dns.TypeA {
			w.t.Errorf("%s: %v, %v", v.name, r, err)
		}
	}
	if err := w.register(w.t.Context(), liveSigned, "web", "late", "10.9.0.9"); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for _, v := range all {
		if err := fault.Until(ctx, 50*time.Millisecond, func() error {
			r, err := v.ask(ctx, name, dns.TypeA)
			if err == nil && (len(r.Answer) == 0 || r.Answer[0].Header().Rrtype != dns.TypeA) {
				err = fmt.Errorf("%s still says: %s", v.name, r)
			}
			return err
		}); err != nil {
			w.t.Error(err)
		}
	}
}

// roll rolls the key of live.city., with what resolvers keep for the hours that it takes
// until all know the new key, and the old one's end. It closes rolling before the end.
func (w *world) roll(keeps time.Duration, rolling chan<- struct{}) {
	w.t.Helper()
	settime := find(w.t, "dnssec-settime", "bind9-utils")
	list := func() []string { return strings.Split(strings.TrimSpace(w.keys(liveSigned, "list")), "\n") }
	older := list()[0]
	w.keys(liveSigned, "roll")
	w.await(worldServers[0][0], liveSigned, dns.TypeDNSKEY, 2)
	w.await(worldServers[1][0], liveSigned, dns.TypeDNSKEY, 2)
	<-time.After(keeps + time.Second) // every cache has both keys now
	close(rolling)
	for _, line := range list() {
		if line[:strings.Index(line, ";")] == older[:strings.Index(older, ";")] {
			continue
		}
		_, file, _ := strings.Cut(line, "tag ")
		file = strings.TrimSuffix(strings.Fields(file)[1], ".private;")
		w.command(settime, "-P", "sync", "-1mi", file)
		_, tag, _ := strings.Cut(line, "tag ")
		tag, _, _ = strings.Cut(tag, ",")
		for ds := range strings.Lines(w.keys(liveSigned, "ds")) {
			if strings.Fields(ds)[3] == tag {
				w.ds[liveSigned] = ds
			}
		}
	}
	w.city()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	if err := fault.Until(ctx, 100*time.Millisecond, func() error { // when the parent has the new DS record alone
		_, err := w.lab.CLI(ctx, "keys", "retire", "--zone", liveSigned, "--dir", w.lab.Path("keys"), "--server", worldRoots[0], "--ds-ttl", (keeps + time.Second).String())
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	w.await(worldServers[0][0], liveSigned, dns.TypeDNSKEY, 1)
	w.await(worldServers[1][0], liveSigned, dns.TypeDNSKEY, 1)
	<-time.After(keeps) // all that the old key signed is gone from the caches
}

// await waits until a server has so many records.
func (w *world) await(server, name string, typ uint16, n int) {
	w.t.Helper()
	v := validator{addr: net.JoinHostPort(server, "53")}
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	if err := fault.Until(ctx, 50*time.Millisecond, func() error {
		r, err := v.ask(ctx, name, typ)
		if err == nil {
			if has := len(slices.DeleteFunc(r.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype != typ })); has != n {
				err = fmt.Errorf("%s has %d records %s, want %d", name, has, dns.TypeToString[typ], n)
			}
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}
