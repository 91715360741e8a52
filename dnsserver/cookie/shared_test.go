package cookie_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/musterdns/muster/dnsserver/cookie"
)

// TestShared_Next (RFC 9018 section 5): over three days of changes, two servers
// that read the shared secrets each minute, half a minute apart, always take each
// other's cookies, and an hour's old ones too.
func TestShared_Next(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	client := netip.MustParseAddr("198.51.100.100")
	var shared cookie.Shared
	var jars [2]*cookie.Jar
	var made [][]byte // one each half minute
	changes, most := 0, 0
	for i := range 3 * 24 * 120 {
		now := start.Add(time.Duration(i) * 30 * time.Second)
		next, changed := shared.Next(now, cookie.Secret(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i))))
		if changed {
			shared = next
			changes++
		}
		secrets, err := shared.Use(now)
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, len(secrets))
		reader := i % 2
		if jars[reader] == nil {
			if jars[reader], err = cookie.New(secrets); err != nil {
				t.Fatal(err)
			}
		} else if err := jars[reader].SetSecrets(secrets); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue
		}
		option := octets(t, "2464c4abcf10c957")
		var server [cookie.ServerSize]byte
		jars[reader].Answer(option, client, uint32(now.Unix()), &server)
		made = append(made, append(option, server[:]...))
		for _, age := range []int{0, 60, 119} { // half minutes
			if age >= len(made) {
				continue
			}
			for n, j := range jars {
				if state := j.Answer(made[len(made)-1-age], client, uint32(now.Unix()), &server); state != cookie.Valid {
					t.Fatalf("%s: server %d does not take a cookie of %d half minutes: %d", now, n, age, state)
				}
			}
		}
	}
	if changes != 5 || most != 2 { // the first, two more, and each old one taken out
		t.Errorf("%d changes and %d secrets at most", changes, most)
	}
}

func TestShared_Use_Errors(t *testing.T) {
	if _, err := (cookie.Shared{Secrets: []cookie.Dated{{Secret: "no secret"}}}).Use(time.Time{}); err == nil {
		t.Error("a secret that is none is used")
	}
}
