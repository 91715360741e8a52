package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/musterdns/muster/zones/sign"
)

// keyKnown is how long it takes until every resolver has a new key: the TTL of the
// zone's DNSKEY records. Only then may a DS record be of that key alone.
const keyKnown = sign.KeyTTL * time.Second

// keyState says what a key does.
func keyState(k *sign.Key, now time.Time) string {
	switch {
	case !k.Published(now) && k.Retiring():
		return "ended: its files may be deleted"
	case !k.Published(now):
		return "not published until " + k.Times.Publish.Format(time.RFC3339)
	}
	said := []string{"published"}
	if k.Signs(now) {
		said = append(said, "signs")
	}
	if k.Synced(now) {
		said = append(said, "its DS record is asked for")
	} else if k.Times.SyncPublish.After(now) {
		said = append(said, "its DS record is asked for from "+k.Times.SyncPublish.Format(time.RFC3339))
	}
	if end := k.Times.Delete; !end.IsZero() {
		said = append(said, "ends "+end.Format(time.RFC3339))
	}
	return strings.Join(said, ", ")
}

// living are the keys that have no end, the newest last.
func living(keys []*sign.Key) []*sign.Key {
	keys = slices.DeleteFunc(slices.Clone(keys), (*sign.Key).Retiring)
	slices.SortStableFunc(keys, func(a, b *sign.Key) int { return a.Times.Created.Compare(b.Times.Created) })
	return keys
}

func (s *session) keysRoll() *cobra.Command {
	cmd := &cobra.Command{Use: "roll", Short: "Make a new key beside the one there is", Args: arguments(0, 0)}
	zone, dir := keyFlags(cmd)
	algorithm := cmd.Flags().String("algorithm", "", "ECDSAP256SHA256 or ED25519, as `NAME`; default: as the key there is")
	cmd.RunE = func(*cobra.Command, []string) error {
		keys, err := readKeys(*zone, *dir)
		if err != nil {
			return err
		}
		keys = living(keys)
		switch {
		case len(keys) == 0:
			return fmt.Errorf("every key of %s has an end: muster keys generate makes another", *zone)
		case len(keys) > 1:
			return fmt.Errorf("%s is being rolled from key %d to %d: end that by muster keys retire", *zone, keys[0].Tag, keys[len(keys)-1].Tag)
		}
		old := keys[0]
		a := old.Algorithm
		if *algorithm != "" {
			if a, err = sign.ParseAlgorithm(*algorithm); err != nil {
				return usagef("--algorithm: %v", err)
			}
		}
		created := time.Now()
		if after := old.Times.Created.Add(time.Second); created.Before(after) {
			created = after // files have seconds, and which key is the newer must be seen
		}
		known := created.Add(keyKnown)
		if err := s.makeKey(old.Zone, a, *dir, sign.Times{Created: created, SyncPublish: known}); err != nil {
			return err
		}
		if times := old.Times; !times.SyncPublish.IsZero() {
			times.SyncStop = known // the parent is to have the new one alone: RFC 7344 section 4
			if err := old.SetTimes(times); err != nil {
				return err
			}
		}
		fmt.Fprintf(s.stderr, "Both keys sign from now on. From %s the zone asks its parent for the DS record above alone;\n"+
			"where the parent does not look, give it to it then, in the place of the old. When it has it: muster keys retire\n", known.Format(time.RFC3339))
		return nil
	}
	return cmd
}

func (s *session) keysRetire() *cobra.Command {
	cmd := &cobra.Command{Use: "retire", Short: "End the old key, once the parent zone has the new one's DS record", Args: arguments(0, 0)}
	zone, dir := keyFlags(cmd)
	var f queryFlags
	cmd.Flags().StringVar(&f.server, "server", "", "`address` of a resolver, or of a name server of the parent zone, that is asked for the DS records")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 5*time.Second, "how long each try to ask may take")
	dsTTL := cmd.Flags().Duration("ds-ttl", 24*time.Hour, "the TTL of the parent's DS records: for so long resolvers need the old key, and until they know the new one")
	force := cmd.Flags().Bool("force", false, "do not ask for the DS records")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		keys, err := readKeys(*zone, *dir)
		if err != nil {
			return err
		}
		keys = living(keys)
		if len(keys) < 2 {
			return fmt.Errorf("%s has one key: muster keys roll makes another first", *zone)
		}
		newest, old := keys[len(keys)-1], keys[:len(keys)-1]
		if !*force {
			if err := f.checkDS(cmd.Context(), newest, old); err != nil {
				return err
			}
		}
		end := time.Now().Add(*dsTTL)
		known := newest.Times.SyncPublish
		if known.IsZero() {
			known = newest.Times.Created.Add(keyKnown)
		}
		if end.Before(known) {
			end = known // or who has the old DNSKEY set could not validate what the new key alone signs
		}
		for _, k := range old {
			times := k.Times
			times.Inactive, times.Delete = end, end
			if err := k.SetTimes(times); err != nil {
				return err
			}
			fmt.Fprintf(s.stdout, "key %d ends %s\n", k.Tag, end.Format(time.RFC3339))
		}
		return nil
	}
	return cmd
}

// checkDS sees that the parent has the DS record of the newest key and of no older.
func (f *queryFlags) checkDS(ctx context.Context, newest *sign.Key, old []*sign.Key) error {
	if f.server == "" {
		return usagef("--server: say whom to ask for the DS records of %s, or --force", newest.Zone.String())
	}
	server, err := dnsServer(f.server)
	if err != nil {
		return err
	}
	f.server = server
	name, err := dnsmessage.NewName(newest.Zone.String())
	if err != nil {
		return err
	}
	const typeDS = 43
	m, _, err := f.exchange(ctx, name, typeDS)
	if err != nil {
		return fmt.Errorf("what DS records the parent of %s has is not known, and no key was ended: %w", name, err)
	}
	if m.RCode != dnsmessage.RCodeSuccess { // NXDOMAIN too: the parent delegates the zone, or who answers is none of its
		return fmt.Errorf("what DS records the parent of %s has is not known, and no key was ended: %s answers %s", name, f.server, rcodeName(m.RCode))
	}
	var there [][]byte
	for _, rr := range m.Answers {
		if body, ok := rr.Body.(*dnsmessage.UnknownResource); ok && rr.Header.Type == typeDS && strings.EqualFold(rr.Header.Name.String(), name.String()) {
			there = append(there, body.Data)
		}
	}
	has := func(k *sign.Key) (is, counts bool) {
		for _, ds := range there {
			known, good := k.IsOf(ds)
			is, counts = is || known, counts || good
		}
		return is, counts
	}
	switch is, counts := has(newest); {
	case is && !counts:
		return fmt.Errorf("%s says that the parent of %s has a DS record of the new key by SHA-1 alone, which validators do not go by (RFC 8624): it must have this first: %s", f.server, name, newest.DSText())
	case !is:
		return fmt.Errorf("%s says that the parent of %s has %d DS records and not this one, which it must have first: %s", f.server, name, len(there), newest.DSText())
	}
	for _, k := range old {
		if is, _ := has(k); is {
			return errors.New("the parent still has the DS record of an old key, which must go first: " + k.DSText())
		}
	}
	return nil
}
