// Package tsig checks and makes transaction signatures (RFC 8945): who asks for a
// zone, and that nobody has changed what is said to them.
//
// It uses the standard library and no clock. What it does takes time and memory;
// only messages that claim to be signed come here.
package tsig

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 8945 section 6: a MAC of it is still sound, and old secondaries have no other
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/musterdns/muster/dnsserver/wire"
)

// fudge is how far the clocks of the two ends may be apart, in seconds (RFC 8945
// section 10: the recommended value).
const fudge = 300

// algorithm is a way to make a MAC.
type algorithm struct {
	name string
	new  func() hash.Hash
	size int
}

// algorithms are those of RFC 8945 section 6 that are not forbidden.
var algorithms = [...]algorithm{
	{"hmac-sha256", sha256.New, sha256.Size},
	{"hmac-sha512", sha512.New, sha512.Size},
	{"hmac-sha384", sha512.New384, sha512.Size384},
	{"hmac-sha224", sha256.New224, sha256.Size224},
	{"hmac-sha1", sha1.New, sha1.Size},
}

// Algorithms lists the names of the algorithms, the one to use first.
func Algorithms() []string {
	names := make([]string, 0, len(algorithms))
	for _, a := range algorithms {
		names = append(names, a.name)
	}
	return names
}

// Key is a secret that two ends share.
type Key struct {
	Name      wire.Name
	Algorithm string // one of Algorithms
	Secret    []byte
}

// SecretMin is how long a secret must be, in octets: one that is shorter can be
// guessed.
const SecretMin = 16

// Keys are the keys that a server knows. It is immutable and safe for concurrent
// use; nil knows none.
type Keys struct{ byName map[string]*key }

type key struct {
	name   string // for people, lower case with a dot at the end
	owner  []byte // in wire form, lower case
	alg    algorithm
	algRef []byte // its name in wire form
	secret []byte
}

// New returns the keys; no two may have one name.
func New(keys []Key) (*Keys, error) {
	k := &Keys{byName: make(map[string]*key, len(keys))}
	for i := range keys {
		made, err := newKey(&keys[i])
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", keys[i].Name.String(), err)
		}
		if k.byName[string(made.owner)] != nil {
			return nil, fmt.Errorf("key %s: given twice", made.name)
		}
		k.byName[string(made.owner)] = made
	}
	return k, nil
}

func newKey(in *Key) (*key, error) {
	if len(in.Secret) < SecretMin {
		return nil, fmt.Errorf("a secret of %d octets, at least %d", len(in.Secret), SecretMin)
	}
	at := slices.IndexFunc(algorithms[:], func(a algorithm) bool { return a.name == strings.ToLower(in.Algorithm) })
	if at < 0 {
		return nil, fmt.Errorf("algorithm %q: use %s", in.Algorithm, strings.Join(Algorithms(), ", "))
	}
	ref, err := wire.ParseName(algorithms[at].name + ".")
	if err != nil {
		return nil, err
	}
	return &key{
		name: in.Name.String(), owner: slices.Clone(in.Name.Wire()), alg: algorithms[at],
		algRef: slices.Clone(ref.Wire()), secret: slices.Clone(in.Secret),
	}, nil
}

// ErrForm is returned for a signature that no key could have made.
var ErrForm = errors.New("a signature of a size that its algorithm does not have")

// Verify holds the query's signature, made about the time now in seconds since
// 1970, against the keys. Without an error the Session signs what is answered, and
// unsigned is the query without its signature. With a fault (TSIGBadKey ..
// TSIGBadTrunc) the answer is NOTAUTH with that in q.TSIGError; a Session beside it
// is to sign that (RFC 8945 section 5.2).
func (k *Keys) Verify(q *wire.Query, now uint64) (unsigned []byte, s *Session, fault uint16, err error) {
	sig := q.Signature()
	var owner, alg wire.Name
	if k == nil || !owner.Set(sig.Owner) || !alg.Set(sig.Algorithm) {
		return nil, nil, wire.TSIGBadKey, nil
	}
	key := k.byName[string(owner.Wire())]
	if key == nil || string(alg.Wire()) != string(key.algRef) { // section 5.2.1
		return nil, nil, wire.TSIGBadKey, nil
	}
	switch size := len(sig.MAC); {
	case size > key.alg.size, size < max(10, key.alg.size/2): // section 5.2.2.1
		return nil, nil, 0, ErrForm
	case size < key.alg.size:
		return nil, nil, wire.TSIGBadTrunc, nil // section 5.2.4: the policy is to have it whole
	}
	unsigned = slices.Clone(q.Msg[:len(q.Msg)-len(q.TSIG)])
	binary.BigEndian.PutUint16(unsigned[10:], binary.BigEndian.Uint16(unsigned[10:])-1)
	signed := slices.Clone(unsigned)
	binary.BigEndian.PutUint16(signed, sig.ID) // section 4.3.2
	want := key.mac(nil, signed, key.variables(&sig))
	if !hmac.Equal(want, sig.MAC) {
		return nil, nil, wire.TSIGBadSig, nil
	}
	s = &Session{key: key, last: slices.Clone(sig.MAC), asked: sig.Signed}
	if max(now, sig.Signed)-min(now, sig.Signed) > uint64(sig.Fudge) { // section 5.2.3
		return nil, s, wire.TSIGBadTime, nil
	}
	return unsigned, s, 0, nil
}

// variables are what is signed beside a message (RFC 8945 section 4.3.3).
func (k *key) variables(sig *wire.Signature) []byte {
	v := slices.Clone(k.owner)
	v = binary.BigEndian.AppendUint16(v, uint16(wire.ClassANY))
	v = binary.BigEndian.AppendUint32(v, 0) // TTL
	v = append(v, k.algRef...)
	v = binary.BigEndian.AppendUint16(wire.AppendUint48(v, sig.Signed), sig.Fudge)
	v = binary.BigEndian.AppendUint16(v, sig.Error)
	v = binary.BigEndian.AppendUint16(v, uint16(len(sig.Other)))
	return append(v, sig.Other...)
}

// mac is the MAC of a message that follows one with the MAC last; nil: none.
func (k *key) mac(last, msg, variables []byte) []byte {
	h := hmac.New(k.alg.new, k.secret)
	if last != nil { // section 5.3.1
		_, _ = h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(last))))
		_, _ = h.Write(last)
	}
	_, _ = h.Write(msg)
	_, _ = h.Write(variables)
	return h.Sum(nil)
}

// Session signs the responses to one query, in their order. One goroutine at a time
// uses it.
type Session struct {
	key   *key
	last  []byte // MAC of the message before
	asked uint64 // when the query was signed
	begun bool   // a response has been signed
}

// Key is the name of the key that the query was signed with.
func (s *Session) Key() string { return s.key.name }

// Size is how many octets a signature takes.
func (s *Session) Size() int {
	sig := s.signature(0)
	return sig.Size() + s.key.alg.size
}

func (s *Session) signature(now uint64) wire.Signature {
	return wire.Signature{Owner: s.key.owner, Algorithm: s.key.algRef, Signed: now, Fudge: fudge}
}

// Sign signs a whole message at the time now, and appends the signature to it.
func (s *Session) Sign(msg []byte, now uint64) []byte {
	sig := s.signature(now)
	sig.ID = binary.BigEndian.Uint16(msg)
	variables := s.key.variables(&sig)
	if s.begun { // section 5.3.1: of those after the first, the times alone
		variables = binary.BigEndian.AppendUint16(wire.AppendUint48(nil, sig.Signed), sig.Fudge)
	}
	return s.finish(msg, sig, variables)
}

// SignBadTime signs the message that says that the query's time was wrong, and what
// it is here (RFC 8945 section 5.2.3).
func (s *Session) SignBadTime(msg []byte, now uint64) []byte {
	sig := s.signature(s.asked)
	sig.ID, sig.Error, sig.Other = binary.BigEndian.Uint16(msg), wire.TSIGBadTime, wire.AppendUint48(nil, now)
	return s.finish(msg, sig, s.key.variables(&sig))
}

func (s *Session) finish(msg []byte, sig wire.Signature, variables []byte) []byte {
	sig.MAC = s.key.mac(s.last, msg, variables)
	s.last, s.begun = sig.MAC, true
	return sig.AppendTo(msg)
}
