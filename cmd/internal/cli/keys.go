package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones/sign"
)

func (s *session) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "keys", Short: "Make and show the keys that zones are signed with", GroupID: groupServer,
		Long: `Makes and shows the keys of signed zones. A zone with "dnssec: DIRECTORY" in the
configuration is signed by every key that the directory has of it, in the format of
BIND's tools.

To sign a zone: generate a key, name the directory in the configuration, see that the
zone is answered with signatures, and only then give the parent zone the DS record that
"keys ds" prints (or let it take it from the zone's CDS records: --cds).

To roll a key: "keys roll" makes another beside it, and both sign. When resolvers know it
the zone asks its parent by CDS and CDNSKEY records for the new DS record alone. Once the
parent has that ("keys retire" looks) the old key ends when resolvers have forgotten its
DS record. The server sees new files and follows the times that are in them, which are
those of BIND's tools (dnssec-settime).`,
		Example: `  muster keys generate --zone svc.example.com. --dir /etc/muster/keys
  muster keys list --zone svc.example.com. --dir /etc/muster/keys
  muster keys roll --zone svc.example.com. --dir /etc/muster/keys
  muster keys retire --zone svc.example.com. --dir /etc/muster/keys --server 10.0.0.2:53`,
	}
	return verbs(cmd, s.keysGenerate(), s.keysList(), s.keysDS(), s.keysRoll(), s.keysRetire())
}

// keyFlags are the flags of every verb about keys.
func keyFlags(cmd *cobra.Command) (zone, dir *string) {
	zone = cmd.Flags().String("zone", "", "the `zone`")
	dir = cmd.Flags().String("dir", ".", "the `directory` with the keys")
	_ = cmd.MarkFlagRequired("zone") // fails only for a flag that is not there
	return zone, dir
}

func (s *session) keysGenerate() *cobra.Command {
	cmd := &cobra.Command{Use: "generate", Short: "Make a key, and print the DS record for the parent zone", Args: arguments(0, 0)}
	zone, dir := keyFlags(cmd)
	algorithm := cmd.Flags().String("algorithm", sign.ECDSAP256SHA256.String(), "ECDSAP256SHA256 or ED25519, as `NAME`")
	cds := cmd.Flags().Bool("cds", false, "have the zone ask its parent for the DS record, by CDS and CDNSKEY records")
	cmd.RunE = func(*cobra.Command, []string) error {
		name, err := wire.ParseName(*zone)
		if err != nil {
			return usagef("--zone %s: %v", *zone, err)
		}
		a, err := sign.ParseAlgorithm(*algorithm)
		if err != nil {
			return usagef("--algorithm: %v", err)
		}
		if err := os.MkdirAll(*dir, 0o700); err != nil {
			return err
		}
		times := sign.Times{Created: time.Now()}
		if *cds {
			times.SyncPublish = times.Created
		}
		return s.makeKey(name, a, *dir, times)
	}
	return cmd
}

// keysMax is how many keys a zone may have at once: a roll needs two, and another algorithm
// as many. Each is one more signature to every answer, and one more to try for validators
// (KeyTrap, CVE-2023-50387).
const keysMax = 4

// makeKey makes a key and prints its DS record.
func (s *session) makeKey(zone wire.Name, a sign.Algorithm, dir string, times sign.Times) error {
	beside, err := sign.ReadDir(dir, zone)
	if err != nil {
		return err
	}
	used := slices.DeleteFunc(slices.Clone(beside), func(k *sign.Key) bool { return !k.Times.Delete.IsZero() && k.Times.Delete.Before(times.Created) })
	if len(used) >= keysMax {
		return fmt.Errorf("%s has %d keys in %s, and may have %d: end one by muster keys retire, or take the files of one away that is not in use", zone.String(), len(used), dir, keysMax)
	}
	key, err := sign.Generate(zone, a, beside)
	if err != nil {
		return err
	}
	key.Times = times
	if err := key.Write(dir); err != nil {
		return err
	}
	fmt.Fprintf(s.stderr, "%s was made: keep it as secret as a password\n", key.File)
	fmt.Fprintln(s.stdout, key.DSText())
	return nil
}

// readKeys reads the keys that the flags name, of which there must be one.
func readKeys(zone, dir string) ([]*sign.Key, error) {
	name, err := wire.ParseName(zone)
	if err != nil {
		return nil, usagef("--zone %s: %v", zone, err)
	}
	keys, err := sign.ReadDir(dir, name)
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("no key of %s in %s", name.String(), dir)
	}
	return keys, err
}

func (s *session) keysList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List a zone's keys, as DNSKEY records", Args: arguments(0, 0)}
	zone, dir := keyFlags(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		keys, err := readKeys(*zone, *dir)
		if err != nil {
			return err
		}
		for _, k := range keys {
			fmt.Fprintf(s.stdout, "%s IN DNSKEY 257 3 %d %s ; %s, tag %d, %s; %s\n", k.Zone.String(), k.Algorithm,
				base64.StdEncoding.EncodeToString(k.DNSKEY()[4:]), k.Algorithm, k.Tag, k.File, keyState(k, time.Now()))
		}
		return nil
	}
	return cmd
}

func (s *session) keysDS() *cobra.Command {
	cmd := &cobra.Command{Use: "ds", Short: "Print the DS records that the parent zone is to have", Args: arguments(0, 0)}
	zone, dir := keyFlags(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		keys, err := readKeys(*zone, *dir)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if !k.Retiring() {
				fmt.Fprintln(s.stdout, k.DSText())
			}
		}
		return nil
	}
	return cmd
}

// checkKeys sees whether the keys of a zone can be used, and are nobody else's.
func (s *session) checkKeys(cfg *config.Config, i int) (errs, warnings int) {
	z := &cfg.Zones[i]
	if z.DNSSEC == "" {
		return 0, 0
	}
	key := fmt.Sprintf("zones[%d].dnssec", i)
	p := config.Problem{Origin: cfg.Where(key), Key: key, Mend: "make one with muster keys generate"}
	name, err := wire.ParseName(z.Name)
	if err != nil {
		return 0, 0 // the configuration was validated
	}
	keys, err := sign.ReadDir(z.DNSSEC, name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.Mend = "let the user that Muster runs as read it"
	case err != nil:
		p.Mend = "see muster keys --help for what the directory holds"
	case len(keys) == 0:
		err = fmt.Errorf("no key of %s in %s", z.Name, z.DNSSEC)
	default:
		_, err = sign.NewOnline(name, keys, time.Now(), new(atomic.Uint64))
	}
	if err != nil {
		p.Reason = err.Error()
		fmt.Fprintln(s.stdout, p)
		return 1, 0
	}
	for _, k := range keys {
		if info, err := os.Stat(k.File); err == nil && info.Mode().Perm()&0o004 != 0 {
			p.Warning, p.Reason, p.Mend = true, k.File+": everybody on this machine may read it, and sign the zone", "chmod o-r "+k.File
			fmt.Fprintln(s.stdout, p)
			warnings++
		}
	}
	return 0, warnings
}
