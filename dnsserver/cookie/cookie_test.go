package cookie_test

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"

	"github.com/musterdns/muster/dnsserver/cookie"
)

func secrets(t testing.TB, texts ...string) []cookie.Secret {
	t.Helper()
	var out []cookie.Secret
	for _, s := range texts {
		secret, err := cookie.ParseSecret(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, secret)
	}
	return out
}

func jar(t testing.TB, texts ...string) *cookie.Jar {
	t.Helper()
	j, err := cookie.New(secrets(t, texts...))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The secret of RFC 9018 Appendix A.1 to A.3, and those of A.4.
const (
	secretA  = "e5e973e5a6b2a43f48e7dc849e37bfcf"
	secretA4 = "445536bcd2513298075a5d379663c962"
	beforeA4 = "dd3bdf9344b678b185a6f5cb60fca715"
)

// TestJar_Answer_RFC9018AppendixA is the published exchanges, octet by octet.
func TestJar_Answer_RFC9018AppendixA(t *testing.T) {
	for _, tt := range []struct {
		name, client, sent string
		secrets            []string
		now                uint32
		state              cookie.State
		want               string
	}{
		{"A.1: learning a new server cookie", "198.51.100.100", "2464c4abcf10c957", []string{secretA}, 1559731985, cookie.ClientOnly, "010000005cf79f111f8130c3eee29480"},
		{"A.2: a renewed server cookie", "198.51.100.100", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", []string{secretA}, 1559734385, cookie.Valid, "010000005cf7a871d4a564a1442aca77"},
		{"A.3: another client, with reserved octets that are not 0", "203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", []string{secretA}, 1559734700, cookie.Invalid, "010000005cf7a9acf73a7810aca2381e"},
		{"A.3: the same while its cookie is not too old", "203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", []string{secretA}, 1559727985 + 3600, cookie.Valid, ""},
		{"A.4: a new secret for a cookie of the one before, IPv6", "2001:db8:220:1:59de:d0f4:8769:82b8", "22681ab97d52c298010000005cf7c57926556bd0934c72f8", []string{secretA4, beforeA4}, 1559741961, cookie.Valid, ""},
		{"A.4: the new secret's cookie", "2001:db8:220:1:59de:d0f4:8769:82b8", "22681ab97d52c298", []string{secretA4, beforeA4}, 1559741961, cookie.ClientOnly, "010000005cf7c609a6bb79d16625507a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got [cookie.ServerSize]byte
			state := jar(t, tt.secrets...).Answer(octets(t, tt.sent), netip.MustParseAddr(tt.client), tt.now, &got)
			if state != tt.state {
				t.Errorf("state %d, want %d", state, tt.state)
			}
			if tt.want != "" && hex.EncodeToString(got[:]) != tt.want {
				t.Errorf("server cookie %x, want %s", got, tt.want)
			}
		})
	}
}

func TestJar_Answer_Validity(t *testing.T) {
	const now = 1559731985
	client := netip.MustParseAddr("198.51.100.100")
	good := octets(t, "2464c4abcf10c957010000005cf79f111f8130c3eee29480")
	changed := func(i int) []byte {
		b := slices.Clone(good)
		b[i] ^= 1
		return b
	}
	for _, tt := range []struct {
		name   string
		option []byte
		client string
		now    uint32
		want   cookie.State
		same   bool // the client keeps its cookie
	}{
		{"RFC 9018 section 4.3: a fresh cookie is kept", good, "198.51.100.100", now + 1799, cookie.Valid, true},
		{"RFC 9018 section 4.3: one of half an hour is renewed", good, "198.51.100.100", now + 1800, cookie.Valid, false},
		{"RFC 9018 section 4.3: one of an hour is good", good, "198.51.100.100", now + 3600, cookie.Valid, false},
		{"RFC 9018 section 4.3: an older one is not", good, "198.51.100.100", now + 3601, cookie.Invalid, false},
		{"RFC 9018 section 4.3: one of the next five minutes is good", good, "198.51.100.100", now - 300, cookie.Valid, true},
		{"RFC 9018 section 4.3: a later one is not", good, "198.51.100.100", now - 301, cookie.Invalid, false},
		{"RFC 9018 section 3: another client's is not", good, "198.51.100.101", now, cookie.Invalid, false},
		{"RFC 7873 section 4.2: the client cookie belongs to it", changed(0), "198.51.100.100", now, cookie.Invalid, false},
		{"RFC 9018 section 4.1: another version is not ours", changed(8), "198.51.100.100", now, cookie.Invalid, false},
		{"RFC 9018 section 4.4: the reserved octets are part of it", changed(9), "198.51.100.100", now, cookie.Invalid, false},
		{"RFC 9018 section 4.4: another hash is not ours", changed(23), "198.51.100.100", now, cookie.Invalid, false},
		{"RFC 7873 section 5.2.4: another length is not ours", append(slices.Clone(good), 0), "198.51.100.100", now, cookie.Invalid, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := jar(t, secretA)
			var got [cookie.ServerSize]byte
			if state := j.Answer(tt.option, netip.MustParseAddr(tt.client), tt.now, &got); state != tt.want {
				t.Errorf("state %d, want %d", state, tt.want)
			}
			if same := slices.Equal(got[:], tt.option[cookie.ClientSize:]); same != tt.same {
				t.Errorf("the cookie is kept: %v, want %v", same, tt.same)
			}
			next := append(slices.Clone(tt.option[:cookie.ClientSize]), got[:]...)
			if state := j.Answer(next, netip.MustParseAddr(tt.client), tt.now, &got); state != cookie.Valid {
				t.Errorf("what the client is given is worth %d, want %d", state, cookie.Valid)
			}
		})
	}
	// RFC 9018 section 5: what the secret before made is good while that is known.
	j := jar(t, secretA)
	var got [cookie.ServerSize]byte
	if err := j.SetSecrets(secrets(t, secretA4, secretA)); err != nil {
		t.Fatal(err)
	}
	if state := j.Answer(good, client, now, &got); state != cookie.Valid {
		t.Errorf("after a new secret: state %d", state)
	}
	if err := j.SetSecrets(secrets(t, secretA4)); err != nil {
		t.Fatal(err)
	}
	if state := j.Answer(good, client, now, &got); state != cookie.Invalid {
		t.Errorf("after the old secret has gone: state %d", state)
	}
}

func TestJar_SetSecrets_Errors(t *testing.T) {
	if _, err := cookie.New(nil); err == nil {
		t.Error("a jar without a secret")
	}
	if _, err := cookie.New(make([]cookie.Secret, cookie.SecretsMax+1)); err == nil {
		t.Error("a jar with too many secrets")
	}
	for _, bad := range []string{"", "e5", secretA + "00", "x" + secretA[1:]} {
		if _, err := cookie.ParseSecret(bad); err == nil {
			t.Errorf("%q is taken for a secret", bad)
		}
	}
}

func TestJar_Answer_Allocations(t *testing.T) {
	j := jar(t, secretA)
	old := octets(t, "2464c4abcf10c957010000005cf79f111f8130c3eee29480")
	client := netip.MustParseAddr("198.51.100.100")
	var got [cookie.ServerSize]byte
	if n := testing.AllocsPerRun(1000, func() { j.Answer(old, client, 1559734385, &got) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkJar_Answer(b *testing.B) {
	j := jar(b, secretA)
	option := octets(b, "2464c4abcf10c957010000005cf79f111f8130c3eee29480")
	client := netip.MustParseAddr("198.51.100.100")
	var got [cookie.ServerSize]byte
	for name, now := range map[string]uint32{"kept": 1559731985, "renewed": 1559734385} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				j.Answer(option, client, now, &got)
			}
		})
	}
}
