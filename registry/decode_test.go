package registry_test

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/musterdns/muster/registry"
)

// compare compares records with addresses in them.
func compare() cmp.Option { return cmpopts.EquateComparable(netip.Addr{}) }

func TestDecodeInstance(t *testing.T) {
	addrs := func(list ...string) (out []netip.Addr) {
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	base := registry.Instance{Service: "web", ID: "a", Weight: 1, Addresses: addrs("10.0.0.11")}
	with := func(change func(*registry.Instance)) registry.Instance {
		in := base
		change(&in)
		return in
	}
	tests := []struct {
		name, value string
		want        registry.Instance
	}{
		{"bare text", "10.0.0.11:8080", with(func(in *registry.Instance) { in.Port = 8080 })},
		{"bare text with white space", " \t10.0.0.11:8080\r\n", with(func(in *registry.Instance) { in.Port = 8080 })},
		{"a bare address", "10.0.0.11", base},
		{"a bare IPv6 address with a port", "[fd00::11]:80", with(func(in *registry.Instance) { in.Addresses, in.Port = addrs("fd00::11"), 80 })},
		{"a bare IPv6 address", "[fd00::11]", with(func(in *registry.Instance) { in.Addresses = addrs("fd00::11") })},
		{"the short form", `{"address":"10.0.0.11","port":8080}`, with(func(in *registry.Instance) { in.Port = 8080 })},
		{"IPv4 in IPv6 is IPv4, once", `{"address":"10.0.0.11","addresses":["::ffff:10.0.0.11"]}`, base},
		{"unknown fields of any kind", `{"x":[{"y":null},true,-1.5e3,"\u00e9\n"],"address":"10.0.0.11","z":{}}`, with(func(in *registry.Instance) { in.Ignored = "x\nz" })},
		{"null is unset", `{"address":"10.0.0.11","port":null,"weight":null,"tags":null,"ttl":null,"checks":null,"meta":null}`, base},
		{"no checks said", `{"address":"10.0.0.11","checks":[]}`, with(func(in *registry.Instance) { in.Checks = []registry.Check{} })},
		{"weight 0", `{"address":"10.0.0.11","weight":0}`, with(func(in *registry.Instance) { in.Weight = 0 })},
		{"whole numbers in other forms", `{"address":"10.0.0.11","weight":3.0,"port":8e1}`, with(func(in *registry.Instance) { in.Weight, in.Port = 3, 80 })},
		{"a TTL above the ceiling", `{"address":"10.0.0.11","ttl":9223372036854775808}`, with(func(in *registry.Instance) { in.TTL = time.Hour })},
		{"a TTL below the floor", `{"address":"10.0.0.11","ttl":"10ms"}`, with(func(in *registry.Instance) { in.TTL = time.Second })},
		{"tags folded, sorted, once", `{"address":"10.0.0.11","tags":["V2","b","v2"]}`, with(func(in *registry.Instance) { in.Tags = []string{"b", "v2"} })},
		{"escapes", `{"address":"10.0.0.11","meta":{"\u0061\"":"\ud83d\ude00\/\ud800"}}`, with(func(in *registry.Instance) { in.Meta = map[string]string{`a"`: "\U0001F600/\uFFFD"} })},
		{"the full form", fullInstance, registry.Instance{
			Service: "web", ID: "a", Addresses: addrs("10.0.0.11", "fd00::11"), Port: 8080, Weight: 3, Tags: []string{"v2"}, Region: "eu", Zone: "eu-1a", TTL: 2 * time.Second,
			Ports: []registry.Port{{Name: "dns", Number: 53, Proto: "udp"}, {Name: "grpc", Number: 9090, Proto: "tcp"}, {Name: "http", Number: 8080, Proto: "tcp"}},
			Checks: []registry.Check{
				{Type: "http", Port: "http", Path: "/healthz", Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3},
				{Type: "https", Insecure: true, Keep: true},
				{Type: "held", Path: "/live"},
				{Type: "exec", Command: []string{"/bin/check", "--a b", ""}},
			},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := registry.DecodeInstance("Web", "A", []byte(test.value))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, compare()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestDecodeInstance_errors holds each error to naming the place, the value and
// the mend.
func TestDecodeInstance_errors(t *testing.T) {
	many := func(n int, s string) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }
	tests := []struct{ name, value, field, quoted string }{
		{"empty", ``, "", ""},
		{"cut off", `{"address":"10.0.0.1"`, "", `"{\"address\":\"10.0.0.1\""`},
		{"no object", `["10.0.0.1"]`, "", `"[\"10.0.0.1\"]"`},
		{"more after the end", `{"address":"10.0.0.1"}x`, "", `"{\"address\":\"10.0.0.1\"}x"`},
		{"a bare newline", "10.0.0.1:80\nroot", "", `"10.0.0.1:80\nroot"`},
		{"a bare port 0", "10.0.0.1:0", "", `"10.0.0.1:0"`},
		{"bare IPv6 without brackets, with a port or without", "fd00::11:8080", "", `"fd00::11:8080"`},
		{"bare IPv4 in brackets", "[10.0.0.1]:80", "", `"[10.0.0.1]:80"`},
		{"no address", `{"port":80}`, "address", ""},
		{"an address misspelled", `{"adress":"10.0.0.1","port":80}`, "address", `"adress"`}, //nolint:misspell // it is meant
		{"an address with a port", `{"address":"10.0.0.1:80"}`, "address", `"10.0.0.1:80"`},
		{"a name for an address", `{"address":"localhost"}`, "address", `"localhost"`},
		{"unspecified", `{"addresses":["10.0.0.1","::"]}`, "addresses[1]", `"::"`},
		{"multicast", `{"address":"ff02::1"}`, "address", `"ff02::1"`},
		{"broadcast", `{"address":"255.255.255.255"}`, "address", `"255.255.255.255"`},
		{"a zone", `{"address":"fe80::1%eth0"}`, "address", `"fe80::1%eth0"`},
		{"too many addresses", `{"addresses":[` + many(registry.AddressesMax+1, `"10.0.0.1"`) + `]}`, "addresses", ""},
		{"port 0", `{"address":"10.0.0.1","port":0}`, "port", `"0"`},
		{"port 65536", `{"address":"10.0.0.1","port":65536}`, "port", `"65536"`},
		{"a quoted port", `{"address":"10.0.0.1","port":"80"}`, "port", `"\"80\""`},
		{"a broken port", `{"address":"10.0.0.1","port":80.5}`, "port", `"80.5"`},
		{"a leading zero", `{"address":"10.0.0.1","port":080}`, "port", ""},
		{"a bad named port", `{"address":"10.0.0.1","ports":{"dns":"53/sctp"}}`, "ports.dns", `"53/sctp"`},
		{"a name of a port that is no label", `{"address":"10.0.0.1","ports":{"d_s":53}}`, "ports", `"d_s"`},
		{"a port named twice", `{"address":"10.0.0.1","ports":{"dns":53,"DNS":54}}`, "ports", `"dns"`},
		{"weight -1", `{"address":"10.0.0.1","weight":-1}`, "weight", `"-1"`},
		{"a negative TTL", `{"address":"10.0.0.1","ttl":-1}`, "ttl", `"-1"`},
		{"a TTL without a unit", `{"address":"10.0.0.1","ttl":"5"}`, "ttl", `"5"`},
		{"an empty tag", `{"address":"10.0.0.1","tags":["a",""]}`, "tags[1]", ""},
		{"a control character", `{"address":"10.0.0.1","region":"a\u001b[2J"}`, "region", `"a\x1b[2J"`},
		{"a text that turns direction", "{\"address\":\"10.0.0.1\",\"region\":\"a\u202eb\"}", "region", `"a\u202eb"`},
		{"no UTF-8", "{\"address\":\"10.0.0.1\",\"meta\":{\"k\":\"\xff\"}}", "meta.k", `"\xff"`},
		{"an unknown check", `{"address":"10.0.0.1","port":1,"checks":[{"type":"tcp"},{"type":"smtp"}]}`, "checks[1].type", `"smtp"`},
		{"an exec check without a command", `{"address":"10.0.0.1","port":1,"checks":[{"type":"exec"}]}`, "checks[0].command", ""},
		{"an exec check of a program to be searched for", `{"address":"10.0.0.1","port":1,"checks":[{"type":"exec","command":["check"]}]}`, "checks[0].command", `"check"`},
		{"an exec check of a program without a name", `{"address":"10.0.0.1","port":1,"checks":[{"type":"exec","command":[""]}]}`, "checks[0].command", `""`},
		{"a check without a type", `{"address":"10.0.0.1","port":1,"checks":[{}]}`, "checks[0].type", ""},
		{"a check without a port", `{"address":"10.0.0.1","checks":[{"type":"tcp"}]}`, "checks[0].port", ""},
		{"a check of a port that is not there", `{"address":"10.0.0.1","checks":[{"type":"tcp","port":"http"}]}`, "checks[0].port", `"http"`},
		{"an interval too short", `{"address":"10.0.0.1","port":1,"checks":[{"type":"tcp","interval":"1ms"}]}`, "checks[0].interval", `"1ms"`},
		{"a path that forges a request", `{"address":"10.0.0.1","port":1,"checks":[{"type":"http","path":"/a HTTP/1.1"}]}`, "checks[0].path", `"/a HTTP/1.1"`},
		{"a status that is none", `{"address":"10.0.0.1","port":1,"checks":[{"type":"http","status":"ok"}]}`, "checks[0].status", `"ok"`},
		{"deep nesting", `{"address":"10.0.0.1","x":` + strings.Repeat(`{"x":`, 50_000), "", ""},
		{"too large", `{"address":"10.0.0.1","x":"` + strings.Repeat("x", registry.ValueMax) + `"}`, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := registry.DecodeInstance("web", "a", []byte(test.value))
			var field *registry.FieldError
			if !errors.As(err, &field) {
				t.Fatalf("error %v, want a FieldError", err)
			}
			if !strings.HasPrefix(field.Field, test.field) || test.field == "" && strings.HasPrefix(field.Field, "address") {
				t.Errorf("field %q, want %q: %v", field.Field, test.field, err)
			}
			if test.quoted != "" && field.Value != test.quoted {
				t.Errorf("value %s, want %s", field.Value, test.quoted)
			}
			if field.Mend == "" || strings.ContainsAny(err.Error(), "\n\x1b\u202e") {
				t.Errorf("error %q has no mend or forges output", err)
			}
		})
	}
}

func TestDecodeService(t *testing.T) {
	half, wait := 0.5, 30*time.Second
	full := `{"policy":"least-loaded","ttl":5,"max_answers":2,"hash_on":"name","checks":[{"type":"tcp","port":80}],"fail":"tier",` +
		`"panic_threshold":0.5,"slow_start":"30s","spill":"proportional","proxy_policy":"peak-ewma","hash_bound":1.25,"vip":["10.0.0.100","fd00::64"],"meta":{"a":"b"},"new":1}`
	tests := []struct {
		name, value string
		want        registry.Service
	}{
		{"empty", `{}`, registry.Service{Name: "web.prod"}},
		{"auto", `{"max_answers":"auto"}`, registry.Service{Name: "web.prod", MaxAnswers: registry.MaxAnswersAuto}},
		{"no virtual address", `{"vip":[]}`, registry.Service{Name: "web.prod", VIP: []netip.Addr{}}},
		{"full", full, registry.Service{
			Name: "web.prod", Policy: "least-loaded", TTL: 5 * time.Second, MaxAnswers: 2, HashOn: "name", Fail: "tier",
			Checks: []registry.Check{{Type: "tcp", Port: "80"}}, PanicThreshold: &half, SlowStart: &wait,
			Spill: "proportional", ProxyPolicy: "peak-ewma", HashBound: 1.25, Meta: map[string]string{"a": "b"}, Ignored: "new",
			VIP: []netip.Addr{netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("fd00::64")},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := registry.DecodeService("Web.Prod", []byte(test.value))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, compare()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	for _, value := range []string{
		`{"policy":"x"}`, `{"proxy_policy":"best"}`, `{"hash_bound":0.5}`, `{"hash_bound":0}`, `{"vip":["0.0.0.0"]}`, `{"vip":"web"}`, `{"max_answers":0}`, `{"max_answers":"all"}`, `{"panic_threshold":1.5}`, `{"fail":"ajar"}`,
		`{"slow_start":"25h"}`, `{"ttl":-1}`, `10.0.0.1`, `{"checks":[{"type":"dns"}]}`,
	} {
		if s, err := registry.DecodeService("web", []byte(value)); err == nil {
			t.Errorf("%s: decoded as %+v", value, s)
		}
	}
}

func TestService_Merge(t *testing.T) {
	wait := time.Duration(0)
	base := registry.Service{Name: "*", Policy: "all", TTL: time.Second, MaxAnswers: 3, Checks: []registry.Check{{Type: "tcp"}}, Fail: "open"}
	over := registry.Service{Name: "web", Policy: "hash", MaxAnswers: registry.MaxAnswersAuto, Checks: []registry.Check{}, SlowStart: &wait, Revision: 9}
	want := registry.Service{Name: "web", Policy: "hash", TTL: time.Second, MaxAnswers: registry.MaxAnswersAuto, Checks: []registry.Check{}, Fail: "open", SlowStart: &wait, Revision: 9}
	if diff := cmp.Diff(want, base.Merge(over), compare()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(want, want.Merge(registry.Service{}), compare()); diff != "" {
		t.Errorf("merging nothing changes it\n%s", diff)
	}
}

func TestDecodeReports(t *testing.T) {
	admin, err := registry.DecodeAdmin("web", "*", []byte(`{"state":"drain","reason":"new kernel","by":"me","until":"2026-01-02T15:04:05+01:00"}`))
	if err != nil || admin.State != registry.AdminDrain || admin.Instance != registry.AllInstances || !admin.Until.Equal(time.Date(2026, 1, 2, 14, 4, 5, 0, time.UTC)) {
		t.Errorf("admin %+v, %v", admin, err)
	}
	load, err := registry.DecodeLoad("web", "a", []byte(`{"active":12}`))
	if err != nil || load.Load >= 0 || load.Active != 12 || load.Capacity != 0 {
		t.Errorf("load %+v, %v", load, err)
	}
	member, err := registry.DecodeMember("ns1", []byte(`{"address":"10.0.0.5:8653","version":"1"}`))
	if err != nil || member.Address != "10.0.0.5:8653" {
		t.Errorf("member %+v, %v", member, err)
	}
	seen := time.Date(2026, 1, 2, 15, 4, 5, 123_456_789, time.UTC)
	told, err := registry.EncodeReport(registry.Report{Service: "web", Instance: "a", Checker: "ns1", Since: seen.Add(time.Second), FirstSign: seen, LastGood: seen.Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	report, err := registry.DecodeReport("web", "a", "ns1", told)
	if err != nil || report.Since.Sub(report.FirstSign) != time.Second || report.FirstSign.Sub(report.LastGood) != time.Minute || seen.Sub(report.FirstSign) >= time.Millisecond {
		t.Errorf("report %s: %+v, %v; want its times to the millisecond", told, report, err)
	}
	for _, value := range []string{`{}`, `{"state":"gone"}`, `{"state":"up","until":"tomorrow"}`, `{"state":"up","by":"a\nb"}`, `drain`} {
		if got, err := registry.DecodeAdmin("web", "a", []byte(value)); err == nil {
			t.Errorf("admin %s: decoded as %+v", value, got)
		}
	}
	for _, value := range []string{`{}`, `{"load":-1}`, `{"load":1e999}`, `{"active":1.5}`, `0.4`} {
		if got, err := registry.DecodeLoad("web", "a", []byte(value)); err == nil {
			t.Errorf("load %s: decoded as %+v", value, got)
		}
	}
}

// TestMembers holds the names that are told to people to what is decoded: each
// is read, as nothing can be made of this value, and no other is.
func TestMembers(t *testing.T) {
	instance := func(member string) error {
		_, err := registry.DecodeInstance("web", "a", []byte(`{"address":"10.0.0.1",`+member+`:[[true]]}`))
		return err
	}
	service := func(member string) error {
		_, err := registry.DecodeService("web", []byte(`{`+member+`:[[true]]}`))
		return err
	}
	for _, test := range []struct {
		name    string
		members []string
		decode  func(member string) error
	}{
		{"instance", registry.InstanceMembers(), instance},
		{"service", registry.ServiceMembers(), service},
		{"check", registry.CheckMembers(), func(member string) error {
			_, err := registry.DecodeService("web", []byte(`{"checks":[{"type":"tcp",`+member+`:[[true]]}]}`))
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, m := range test.members {
				if test.decode(strconv.Quote(m)) == nil {
					t.Errorf("%s is not read", m)
				}
			}
			if err := test.decode(`"unheard_of"`); err != nil {
				t.Errorf("a member that nobody knows: %v", err)
			}
		})
	}
}

// TestDecode_mends_with_the_record_at_hand: what is no object is mended to one of its
// own kind. The mend was an instance, whatever was read.
func TestDecode_mends_with_the_record_at_hand(t *testing.T) {
	decode := map[string]func(value []byte) error{
		`{"policy":`:       func(v []byte) error { _, err := registry.DecodeService("web", v); return err },
		`{"state":"drain"`: func(v []byte) error { _, err := registry.DecodeAdmin("web", "a", v); return err },
		`{"load":`:         func(v []byte) error { _, err := registry.DecodeLoad("web", "a", v); return err },
		`{"path":`:         func(v []byte) error { _, err := registry.DecodeRoute("r", v); return err },
	}
	for mend, decode := range decode {
		for _, value := range []string{"hash", "0.4", `{"a":`, `[]`} {
			var field *registry.FieldError
			if err := decode([]byte(value)); !errors.As(err, &field) || !strings.Contains(field.Mend, mend) {
				t.Errorf("%s: error %v, want a mend with %s", value, err, mend)
			}
		}
	}
}
