// Package cookie knows DNS clients again by the cookies of RFC 7873, made as RFC
// 9018 has it, so that servers of different makers that know one secret take each
// other's. It uses the standard library only, and no clock.
package cookie

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
)

// Sizes in octets.
const (
	ClientSize = 8  // a client cookie, RFC 7873 section 4
	ServerSize = 16 // a server cookie of ours, RFC 9018 section 4
	hashed     = 8  // of a server cookie: version, reserved, timestamp
)

// version is that of server cookies, RFC 9018 section 4.1.
const version = 1

// How long a server cookie is good, in seconds (RFC 9018 section 4.3).
const (
	life  = 60 * 60
	renew = 30 * 60 // from this age on the client gets a new one
	ahead = 5 * 60  // another server's clock may be ahead
)

// Secret is what server cookies are made with. Who knows it can make cookies for
// any client.
type Secret [16]byte

// ParseSecret reads 32 hexadecimal digits, as NSD, Knot and BIND have them.
func ParseSecret(s string) (Secret, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(Secret{}) {
		return Secret{}, errors.New("a cookie secret is 32 hexadecimal digits") // and is not shown
	}
	return Secret(b), nil
}

// SecretsMax is how many secrets a Jar knows at once: the present one, those
// before and after it, and a server's own of before it knew the shared ones.
const SecretsMax = 8

// State is what a client's cookie is worth. Zero is unknown.
type State uint8

// The states.
const (
	Unknown    State = iota
	ClientOnly       // the client has no server cookie yet
	Invalid          // too old, or not made for this client by a secret that we know
	Valid            // the client receives what is sent to its address
)

// Jar makes cookies and knows them again. It is safe for concurrent use; New
// makes one.
type Jar struct {
	secrets atomic.Pointer[[]Secret] // latest value; the first makes cookies, all are accepted
}

// New returns a Jar; see SetSecrets.
func New(secrets []Secret) (*Jar, error) {
	j := new(Jar)
	return j, j.SetSecrets(secrets)
}

// SetSecrets replaces the secrets, of which there must be one at least: the first
// makes cookies, all are accepted (RFC 9018 section 5).
func (j *Jar) SetSecrets(secrets []Secret) error {
	if len(secrets) == 0 || len(secrets) > SecretsMax {
		return fmt.Errorf("cookie: %d secrets: want 1 to %d", len(secrets), SecretsMax)
	}
	kept := slices.Clone(secrets)
	j.secrets.Store(&kept)
	return nil
}

// Answer judges the cookie option of a query, which begins with a client cookie,
// and writes the server cookie that the client is to have from now on: the one it
// sent while that is fresh (RFC 9018 section 4.3). now is in seconds since 1970.
// It allocates nothing.
func (j *Jar) Answer(option []byte, client netip.Addr, now uint32, server *[ServerSize]byte) State {
	secrets := *j.secrets.Load()
	state := ClientOnly
	if given := option[ClientSize:]; len(given) > 0 {
		state = Invalid
		if fits(given, now) && made(option, client, secrets) {
			state = Valid
			if age(given, now) < renew {
				copy(server[:], given)
				return state
			}
		}
	}
	*server = [ServerSize]byte{version}
	binary.BigEndian.PutUint32(server[4:], now)
	hash := hashOf(&secrets[0], option[:ClientSize], server[:hashed], client)
	binary.LittleEndian.PutUint64(server[hashed:], hash)
	return state
}

// age is how old a server cookie is, in seconds; less than 0 when it was made by
// a clock that is ahead of ours. RFC 9018 section 4.3 has times compared as
// serial numbers (RFC 1982).
func age(server []byte, now uint32) int32 { return int32(now - binary.BigEndian.Uint32(server[4:])) }

// fits reports whether a server cookie is of our form and of an age that counts.
func fits(server []byte, now uint32) bool {
	if len(server) != ServerSize || server[0] != version {
		return false
	}
	a := age(server, now)
	return a <= life && a >= -ahead
}

// made reports whether the server cookie was made for the client by one of the
// secrets. Its reserved octets count as they came (RFC 9018 section 4.4).
func made(option []byte, client netip.Addr, secrets []Secret) bool {
	server := option[ClientSize:]
	hash := binary.LittleEndian.Uint64(server[hashed:])
	for i := range secrets {
		// One comparison of a word: how long it takes tells nothing of the hash.
		if hashOf(&secrets[i], option[:ClientSize], server[:hashed], client) == hash {
			return true
		}
	}
	return false
}

// hashOf is the hash of RFC 9018 section 4.4, over the client cookie, the first
// octets of the server cookie and the client's address.
func hashOf(secret *Secret, clientCookie, head []byte, client netip.Addr) uint64 {
	var msg [ClientSize + hashed + 16]byte
	n := copy(msg[:], clientCookie)
	n += copy(msg[n:], head)
	if client.Is4() {
		a := client.As4()
		n += copy(msg[n:], a[:])
	} else {
		a := client.As16()
		n += copy(msg[n:], a[:])
	}
	return siphash(secret, msg[:n])
}
