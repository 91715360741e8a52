package sign

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Times are when what becomes of a key, to the second, as BIND's tools write them
// (dnssec-settime). A zero time never comes, but for Publish and Activate, which then
// have always been.
type Times struct {
	Created               time.Time
	Publish, Delete       time.Time // between, the zone has the DNSKEY record
	Activate, Inactive    time.Time // between, the key signs
	SyncPublish, SyncStop time.Time // between, the zone has its CDS and CDNSKEY records (RFC 7344)
}

// timeField is a field of a key file.
type timeField struct {
	name string
	of   func(*Times) *time.Time
}

// timeFields are all, in the order in which they are written.
var timeFields = []timeField{
	{"Created", func(t *Times) *time.Time { return &t.Created }},
	{"Publish", func(t *Times) *time.Time { return &t.Publish }},
	{"Activate", func(t *Times) *time.Time { return &t.Activate }},
	{"Inactive", func(t *Times) *time.Time { return &t.Inactive }},
	{"Delete", func(t *Times) *time.Time { return &t.Delete }},
	{"SyncPublish", func(t *Times) *time.Time { return &t.SyncPublish }},
	{"SyncDelete", func(t *Times) *time.Time { return &t.SyncStop }},
}

// timeLayout is that of the fields, in UTC.
const timeLayout = "20060102150405"

// parseTimes reads the times among the fields of a key file.
func parseTimes(fields map[string]string) (t Times, err error) {
	for _, f := range timeFields {
		text, ok := fields[f.name]
		if !ok {
			continue
		}
		if *f.of(&t), err = time.Parse(timeLayout, text); err != nil {
			return t, fmt.Errorf("%s: %q: must be a time in UTC such as %s", f.name, text, timeLayout)
		}
	}
	return t, nil
}

// text is the times as fields of a key file.
func (t *Times) text() string {
	var b strings.Builder
	for _, f := range timeFields {
		if at := *f.of(t); !at.IsZero() {
			fmt.Fprintf(&b, "%s: %s\n", f.name, at.UTC().Format(timeLayout))
		}
	}
	return b.String()
}

// within reports whether now is from a time on and before another. A zero end is none.
func within(now, from, end time.Time) bool {
	return !now.Before(from) && (end.IsZero() || now.Before(end))
}

// Published reports whether the zone has the key's DNSKEY record.
func (k *Key) Published(now time.Time) bool { return within(now, k.Times.Publish, k.Times.Delete) }

// Signs reports whether the key signs.
func (k *Key) Signs(now time.Time) bool {
	return k.Published(now) && within(now, k.Times.Activate, k.Times.Inactive)
}

// Synced reports whether the zone asks its parent for a DS record of the key.
func (k *Key) Synced(now time.Time) bool {
	return !k.Times.SyncPublish.IsZero() && k.Published(now) && within(now, k.Times.SyncPublish, k.Times.SyncStop)
}

// Retiring reports whether the key has an end.
func (k *Key) Retiring() bool { return !k.Times.Inactive.IsZero() || !k.Times.Delete.IsZero() }

// which are the keys that do something.
func which(keys []*Key, does func(*Key, time.Time) bool, now time.Time) []*Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k *Key) bool { return !does(k, now) })
}

// errNoneSigns says why a zone that has keys cannot be signed.
var errNoneSigns = errors.New("no key that signs now: make one with muster keys generate")

// Next is when what a key of those does changes next; zero: it does not.
func Next(keys []*Key, now time.Time) time.Time {
	var next time.Time
	for _, k := range keys {
		for _, f := range timeFields {
			if at := *f.of(&k.Times); at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// changed is when the signatures of a zone last changed: when the day began or, since, a
// key did.
func changed(keys []*Key, now time.Time) time.Time {
	last := Day(now)
	for _, k := range keys {
		for _, f := range timeFields {
			if at := *f.of(&k.Times); !at.After(now) && at.After(last) {
				last = at
			}
		}
	}
	return last
}

// SetTimes writes the key's file with other times.
func (k *Key) SetTimes(t Times) error {
	old, err := os.ReadFile(k.File)
	if err != nil {
		return err
	}
	var b strings.Builder
	for line := range strings.Lines(string(old)) {
		name, _, _ := strings.Cut(line, ":")
		if !slices.ContainsFunc(timeFields, func(f timeField) bool { return f.name == name }) {
			b.WriteString(line)
		}
	}
	b.WriteString(t.text())
	info, err := os.Stat(k.File)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(k.File), ".key-*") // for its owner alone
	if err != nil {
		return err
	}
	_, err = f.WriteString(b.String())
	// Whoever reads it goes on to.
	if err = errors.Join(err, keepOwner(f, info), f.Chmod(info.Mode().Perm()), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), k.File)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	k.Times = t
	return nil
}

// keepOwner gives a file the owner and group of another.
func keepOwner(f *os.File, of os.FileInfo) error {
	own, err := f.Stat()
	if err != nil {
		return err
	}
	is, ok := own.Sys().(*syscall.Stat_t)
	want, wanted := of.Sys().(*syscall.Stat_t)
	if !ok || !wanted || is.Uid == want.Uid && is.Gid == want.Gid {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}
