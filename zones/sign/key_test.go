package sign_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/zones/sign"
)

// TestGenerate_tags: no two keys of a zone have one tag, by which validators choose the key
// to try: KeyTrap (CVE-2023-50387). Every odd tag is taken; half of all keys have one.
func TestGenerate_tags(t *testing.T) {
	var beside []*sign.Key
	for tag := 1; tag < 1<<16; tag += 2 {
		beside = append(beside, &sign.Key{Tag: uint16(tag)})
	}
	for range 20 {
		for _, a := range []sign.Algorithm{sign.ECDSAP256SHA256, sign.Ed25519} {
			k, err := sign.Generate(name(t, "example.test."), a, beside)
			if err != nil {
				t.Fatal(err)
			}
			if tag := parsed(t, k).KeyTag(); tag%2 != 0 || tag != k.Tag {
				t.Errorf("a key with the tag %d, by miekg/dns %d, where every odd one is taken", k.Tag, tag)
			}
		}
	}
	for tag := 0; tag < 1<<16; tag += 2 {
		beside = append(beside, &sign.Key{Tag: uint16(tag)})
	}
	if k, err := sign.Generate(name(t, "example.test."), sign.Ed25519, beside); err == nil {
		t.Errorf("a key with the tag %d, where every one is taken", k.Tag)
	}
}

func TestKey_IsWrittenAndRead(t *testing.T) {
	dir := t.TempDir()
	var tags []uint16
	for _, a := range []sign.Algorithm{sign.ECDSAP256SHA256, sign.Ed25519} {
		k := generate(t, "example.test.", a)
		if err := k.Write(dir); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(k.File); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", k.File, info.Mode(), err)
		}
		if p := parsed(t, k); p.KeyTag() != k.Tag || !strings.Contains(strings.ReplaceAll(k.DSText(), " ", ""), strings.ToUpper(p.ToDS(dns.SHA256).Digest)) {
			t.Errorf("%s: tag %d and DS %s; miekg/dns has %d and %s", a, k.Tag, k.DSText(), p.KeyTag(), p.ToDS(dns.SHA256))
		}
		tags = append(tags, k.Tag)
		// BIND's format, read by another.
		text, err := os.ReadFile(k.File)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parsed(t, k).NewPrivateKey(string(text)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	keys, err := sign.ReadDir(dir, name(t, "example.test."))
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	slices.Sort(tags)
	if got := []uint16{keys[0].Tag, keys[1].Tag}; !slices.Equal(got, tags) {
		t.Errorf("read are %d, written were %d", got, tags)
	}
	if other, err := sign.ReadDir(dir, name(t, "test.")); err != nil || len(other) != 0 {
		t.Errorf("another zone has %d keys, %v", len(other), err)
	}
	bad := filepath.Join(dir, "Kexample.test.+013+00001.private")
	if err := os.WriteFile(bad, []byte("Private-key-format: v1.3\nAlgorithm: 8 (RSASHA256)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sign.ReadDir(dir, name(t, "example.test.")); err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("a bad key: %v", err)
	}
	if _, err := sign.ReadDir(bad, name(t, "example.test.")); err == nil {
		t.Error("a file is taken for a directory without keys")
	}
	if err := errors.Join(os.Remove(bad), os.Remove(keys[0].File)); err != nil {
		t.Fatal(err)
	}
	if _, err := sign.ReadDir(dir, name(t, "example.test.")); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(keys[0].File, "private")+"key") {
		t.Errorf("a key without its private file: %v", err)
	}
}
