// Package sign signs zones (RFC 4034, RFC 4035): all of a static zone when it is
// loaded, with NSEC records; and what a service zone answers when it is asked, with
// the signatures kept and compact denial (RFC 9824).
//
// The algorithms are ECDSA P-256 (RFC 6605) and Ed25519 (RFC 8080): small and fast.
// One key signs everything of a zone (a CSK, flags 257); while several are there all
// sign, which is how keys are rolled: the new one beside the old, until no resolver
// has anything of the old.
package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // of DS records that others have made
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Algorithm is a number of RFC 8624.
type Algorithm uint8

// The algorithms.
const (
	ECDSAP256SHA256 Algorithm = 13
	Ed25519         Algorithm = 15
)

// algorithmNames are those of key files and of people.
var algorithmNames = map[Algorithm]string{ECDSAP256SHA256: "ECDSAP256SHA256", Ed25519: "ED25519"}

// String is the algorithm's mnemonic.
func (a Algorithm) String() string {
	if s, ok := algorithmNames[a]; ok {
		return s
	}
	return "algorithm " + strconv.Itoa(int(a))
}

// ParseAlgorithm reads a mnemonic, in either case.
func ParseAlgorithm(s string) (Algorithm, error) {
	for a, name := range algorithmNames {
		if strings.EqualFold(name, s) {
			return a, nil
		}
	}
	return 0, fmt.Errorf("algorithm %q: use ECDSAP256SHA256 or ED25519", s)
}

const (
	flagsCSK    = 257 // zone key and secure entry point (RFC 4034 section 2.1.1, RFC 3757)
	protocol    = 3   // RFC 4034 section 2.1.2
	digestSHA1  = 1   // RFC 4034; read, and never made: RFC 8624 section 3.3
	digestSHA2  = 2   // RFC 4509
	digestSHA4  = 4   // SHA-384: RFC 6605; read, and never made
	coordinates = 32  // of P-256, in octets
)

// Key is a key of a zone.
type Key struct {
	Zone      wire.Name
	Algorithm Algorithm
	Tag       uint16 // RFC 4034 appendix B
	File      string // that it was read from
	Times     Times

	rdata  []byte // of the DNSKEY record
	signer crypto.Signer
}

// Generate makes a key for a zone, whose tag none of those beside it has: validators would
// have to try every key of a tag, and bound how often they do (KeyTrap, CVE-2023-50387). The
// random source is crypto/rand's.
func Generate(zone wire.Name, a Algorithm, beside []*Key) (*Key, error) {
	for range triesMax {
		k, err := generate(zone, a)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(beside, func(other *Key) bool { return other.Tag == k.Tag }) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("%d keys were made, and their tags are all taken", triesMax)
}

// triesMax is how many keys are made to get one with a tag of its own: of 65,536 tags a zone
// has a few.
const triesMax = 64

func generate(zone wire.Name, a Algorithm) (*Key, error) {
	switch a {
	case ECDSAP256SHA256:
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return newKey(zone, a, k)
	case Ed25519:
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return newKey(zone, a, k)
	}
	return nil, fmt.Errorf("%s: not supported", a)
}

func newKey(zone wire.Name, a Algorithm, s crypto.Signer) (*Key, error) {
	var public []byte
	switch pub := s.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := pub.Bytes() // 4, X, Y: RFC 6605 section 4 has the coordinates alone
		if err != nil {
			return nil, err
		}
		public = point[1:]
	case ed25519.PublicKey:
		public = pub
	}
	k := &Key{Zone: zone, Algorithm: a, signer: s}
	k.rdata = append(binary.BigEndian.AppendUint16(nil, flagsCSK), protocol, byte(a))
	k.rdata = append(k.rdata, public...)
	k.Tag = keyTag(k.rdata)
	return k, nil
}

// keyTag is RFC 4034 appendix B.
func keyTag(rdata []byte) uint16 {
	var sum uint32
	for i, b := range rdata {
		if i&1 == 0 {
			sum += uint32(b) << 8
		} else {
			sum += uint32(b)
		}
	}
	return uint16(sum + sum>>16)
}

// DNSKEY is the RDATA of the key's DNSKEY record, and of its CDNSKEY (RFC 7344).
func (k *Key) DNSKEY() []byte { return k.rdata }

// DS is the RDATA of the DS record that the parent zone is to have (RFC 4034 section
// 5.1, RFC 4509), and of the CDS record that asks for it.
func (k *Key) DS() []byte {
	sum := sha256.Sum256(slices.Concat(k.Zone.Wire(), k.rdata))
	return append(append(binary.BigEndian.AppendUint16(nil, k.Tag), byte(k.Algorithm), digestSHA2), sum[:]...)
}

// IsOf reports whether a DS record's RDATA is of the key: as Describes has it.
func (k *Key) IsOf(ds []byte) (is, counts bool) { return Describes(ds, &k.Zone, k.rdata) }

// Describes reports whether a DS record's RDATA is of a zone's key, whose DNSKEY record's
// RDATA is given, by any digest that is known; counts: by one that validators go by, which
// SHA-1 is not (RFC 8624 section 3.3).
func Describes(ds []byte, zone *wire.Name, dnskey []byte) (is, counts bool) {
	if len(ds) < 4 || len(dnskey) < 4 || binary.BigEndian.Uint16(ds) != keyTag(dnskey) || ds[2] != dnskey[3] {
		return false, false
	}
	signed := slices.Concat(zone.Wire(), dnskey)
	switch ds[3] {
	case digestSHA1:
		sum := sha1.Sum(signed) //nolint:gosec // what others have made of it
		return bytes.Equal(ds[4:], sum[:]), false
	case digestSHA2:
		sum := sha256.Sum256(signed)
		is = bytes.Equal(ds[4:], sum[:])
	case digestSHA4:
		sum := sha512.Sum384(signed)
		is = bytes.Equal(ds[4:], sum[:])
	}
	return is, is
}

// DSText is the DS record as a zone file has it.
func (k *Key) DSText() string {
	ds := k.DS()
	return fmt.Sprintf("%s IN DS %d %d %d %X", k.Zone.String(), k.Tag, k.Algorithm, digestSHA2, ds[4:])
}

// sign signs data.
func (k *Key) sign(data []byte) ([]byte, error) {
	if k.Algorithm == Ed25519 {
		return k.signer.Sign(rand.Reader, data, crypto.Hash(0))
	}
	// Without a random source signatures are those of RFC 6979: servers with the same
	// keys make the same.
	sum := sha256.Sum256(data)
	der, err := k.signer.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var n struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &n); err != nil {
		return nil, err
	}
	out := make([]byte, 2*coordinates) // RFC 6605 section 4: both numbers, each filled up
	n.R.FillBytes(out[:coordinates])
	n.S.FillBytes(out[coordinates:])
	return out, nil
}

// name is what BIND's tools call the files of a key: K, zone, algorithm and tag.
func (k *Key) name() string { return fmt.Sprintf("K%s+%03d+%05d", k.Zone.String(), k.Algorithm, k.Tag) }

// Write writes the key into a directory, in the format of BIND's tools: the DNSKEY
// record into a file .key, the secret into .private that its owner alone may read. It
// sets File.
func (k *Key) Write(dir string) error {
	var secret []byte
	switch s := k.signer.(type) {
	case *ecdsa.PrivateKey:
		var err error
		if secret, err = s.Bytes(); err != nil {
			return err
		}
	case ed25519.PrivateKey:
		secret = s.Seed()
	}
	base := filepath.Join(dir, k.name())
	public := fmt.Sprintf("; made by muster keys generate\n%s IN DNSKEY %d %d %d %s\n", k.Zone.String(), flagsCSK, protocol, k.Algorithm, base64.StdEncoding.EncodeToString(k.rdata[4:]))
	private := fmt.Sprintf("Private-key-format: v1.3\nAlgorithm: %d (%s)\nPrivateKey: %s\n", k.Algorithm, k.Algorithm, base64.StdEncoding.EncodeToString(secret)) + k.Times.text()
	k.File = base + ".private"
	if err := create(k.File, private, 0o600); err != nil {
		return err
	}
	return create(base+".key", public, 0o644)
}

// create writes a file that must not be there.
func create(path, text string, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	return errors.Join(err, f.Close())
}

// ReadDir reads the keys of a zone from a directory, sorted by tag. One that is not
// there has none. A key of which there is only the public file is an error: the parent may
// have its DS record, by which all would be bogus that others sign.
func ReadDir(dir string, zone wire.Name) ([]*Key, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var keys []*Key
	secret := map[string]bool{}
	for _, e := range slices.Backward(entries) { // sorted: .private before .key
		base, of := strings.CutPrefix(e.Name(), "K"+zone.String()+"+")
		file := filepath.Join(dir, e.Name())
		switch ext := filepath.Ext(base); {
		case of && ext == ".private":
			k, err := readKey(file, zone)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			secret[strings.TrimSuffix(base, ext)] = true
			keys = append(keys, k)
		case of && ext == ".key" && !secret[strings.TrimSuffix(base, ext)]:
			return nil, fmt.Errorf("%s: there is no .private file beside it: put that back, or, if the key has ended, delete this one too", file)
		}
	}
	slices.SortFunc(keys, func(a, b *Key) int { return int(a.Tag) - int(b.Tag) })
	return keys, nil
}

func readKey(file string, zone wire.Name) (*Key, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, errors.Unwrap(err) // ReadDir says which file it is
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	number, _, _ := strings.Cut(fields["Algorithm"], " ")
	n, err := strconv.ParseUint(number, 10, 8)
	if err != nil {
		return nil, errors.New("is no private key in the format of BIND's tools: no Algorithm")
	}
	secret, err := base64.StdEncoding.DecodeString(fields["PrivateKey"])
	if err != nil || len(secret) == 0 {
		return nil, errors.New("has no PrivateKey in base64") // and is not shown
	}
	k, err := restore(zone, Algorithm(n), secret)
	if err != nil {
		return nil, err
	}
	if want := k.name() + ".private"; filepath.Base(file) != want {
		return nil, fmt.Errorf("holds another key than its name says: %s", want)
	}
	k.File = file
	if k.Times, err = parseTimes(fields); err != nil {
		return nil, err
	}
	return k, nil
}

// restore makes a key from its secret.
func restore(zone wire.Name, a Algorithm, secret []byte) (*Key, error) {
	switch {
	case a == ECDSAP256SHA256 && len(secret) == coordinates:
		s, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
		if err != nil {
			return nil, err
		}
		return newKey(zone, a, s)
	case a == Ed25519 && len(secret) == ed25519.SeedSize:
		return newKey(zone, a, ed25519.NewKeyFromSeed(secret))
	}
	return nil, fmt.Errorf("%s with a secret of %d octets: use ECDSAP256SHA256 or ED25519", a, len(secret))
}
