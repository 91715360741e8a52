package registry

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The snapshot file: what a server last knew, for a start while etcd is away.
//
//	magic, version   8 octets and 1
//	sections         a tag octet, a length in 4 octets, that many octets
//	end              the tag of the end, and SHA-256 over all before the sum
//
// Sections follow one another in any number; the records of a zone come after
// its head. The file is written beside its place and renamed into it when it is
// whole and on the disk, so that what stands there is the old or the new one.
const (
	snapshotMagic   = "MUSTERSN"
	snapshotVersion = 5

	// SnapshotMax is the greatest size of a snapshot file in bytes that is
	// read: about three million instances.
	SnapshotMax = 1 << 30
	// StoresMax is how many of its Stores a snapshot keeps.
	StoresMax = 1000
)

// The tags of sections.
const (
	tagEnd byte = iota
	tagHead
	tagSerial
	tagZone
	tagInstance
	tagService
	tagAdmin
	tagHealth
	tagRoute
	tagNote
)

// ErrSnapshot is returned, wrapped, for a file that is no whole snapshot of
// this version: torn, changed, of another version, or no snapshot at all.
var ErrSnapshot = errors.New("no usable snapshot")

// Snapshot is the complete state of every zone at one time, and what else a
// server that starts without its registry goes on with.
type Snapshot struct {
	Written time.Time // set by WriteSnapshot
	// Stores says where the records come from: the URLs of etcd, or whatever
	// else the caller tells one store from another by; at most StoresMax.
	Stores []string
	// Zones holds the complete state of each zone's source, by the zone's name,
	// in pages: the instances, services, admin records, routes and notes, the revision and the
	// AsOf of the last page. ReadSnapshot returns pages as a Watcher delivers
	// them, but with Snapshot set and without a Source. Of a note there is the Service
	// of its key and its value, which is a []byte.
	Zones map[string][]Batch
	// Serials are the SOA serials, by the zone's name.
	Serials map[string]uint32
	// Health is what health checks had found, by the zone's name.
	Health map[string][]HealthMark
}

// HealthMark is the health of one instance when the snapshot was written.
type HealthMark struct {
	Service, Instance string
	State             uint8 // a health.State
}

// WriteSnapshot writes the file, or leaves the one that is there as it was and
// returns why: the disk is full, or read-only. Beside what it is given it needs
// memory for one record. Calls for one path must not overlap.
func WriteSnapshot(path string, s Snapshot) (err error) {
	s.Written = time.Now()
	temporary := path + ".tmp"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(temporary)
			err = fmt.Errorf("writing a snapshot: %w", err)
		}
	}()
	if err := writeSnapshot(file, s); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// snapshotWriter writes sections and keeps the sum of them.
type snapshotWriter struct {
	out   *bufio.Writer
	buf   []byte // the section being written; used again for the next
	err   error  // the first
	total int64
}

func writeSnapshot(file io.Writer, s Snapshot) error {
	sum := sha256.New()
	w := &snapshotWriter{out: bufio.NewWriterSize(io.MultiWriter(file, sum), 1<<18)}
	w.raw(append([]byte(snapshotMagic), snapshotVersion))
	w.section(tagHead, func(b []byte) []byte {
		stores := s.Stores[:min(len(s.Stores), StoresMax)]
		b = binary.AppendUvarint(appendTime(b, s.Written), uint64(len(stores)))
		for _, store := range stores {
			b = appendString(b, store)
		}
		return b
	})
	for _, zone := range slices.Sorted(maps.Keys(s.Serials)) {
		w.section(tagSerial, func(b []byte) []byte {
			return binary.AppendUvarint(appendString(b, zone), uint64(s.Serials[zone]))
		})
	}
	for _, zone := range slices.Sorted(maps.Keys(s.Zones)) {
		w.zone(zone, s.Zones[zone])
		writeAll(w, tagHealth, s.Health[zone], appendHealth)
	}
	w.raw([]byte{tagEnd})
	if w.total > SnapshotMax {
		return fmt.Errorf("it has %d bytes, more than %d", w.total, SnapshotMax)
	}
	if err := w.out.Flush(); w.err == nil {
		w.err = err
	}
	if w.err != nil {
		return w.err
	}
	_, err := file.Write(sum.Sum(nil))
	return err
}

func (w *snapshotWriter) zone(name string, pages []Batch) {
	var last Batch
	instances := 0
	for i := range pages {
		last, instances = pages[i], instances+len(pages[i].Instances)
	}
	w.section(tagZone, func(b []byte) []byte {
		b = binary.AppendVarint(appendString(b, name), last.Revision)
		return binary.AppendUvarint(appendTime(b, last.AsOf), uint64(instances))
	})
	for i := range pages {
		writeAll(w, tagInstance, pages[i].Instances, appendInstance)
		writeAll(w, tagService, pages[i].Services, appendService)
		writeAll(w, tagAdmin, pages[i].Admin, appendAdmin)
		writeAll(w, tagRoute, pages[i].Routes, appendRoute)
		writeAll(w, tagNote, pages[i].Notes, appendNote)
	}
}

// writeAll writes a section for each record.
func writeAll[T any](w *snapshotWriter, tag byte, all []T, encode func([]byte, T) []byte) {
	for _, v := range all {
		w.section(tag, func(b []byte) []byte { return encode(b, v) })
	}
}

// section writes one section.
func (w *snapshotWriter) section(tag byte, body func([]byte) []byte) {
	w.buf = body(append(w.buf[:0], tag, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(w.buf[1:], uint32(len(w.buf)-5))
	w.raw(w.buf)
}

func (w *snapshotWriter) raw(b []byte) {
	if w.err == nil {
		_, w.err = w.out.Write(b)
		w.total += int64(len(b))
	}
}

// ReadSnapshot reads a file that WriteSnapshot wrote. It returns the whole
// state or an error, never a part: one that os.IsNotExist knows when there is
// no file, or one that wraps ErrSnapshot.
func ReadSnapshot(path string) (Snapshot, error) {
	file, err := os.Open(path)
	if err != nil {
		return Snapshot{}, fmt.Errorf("reading a snapshot: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return Snapshot{}, fmt.Errorf("reading a snapshot: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > SnapshotMax {
		return Snapshot{}, fmt.Errorf("reading a snapshot: %s: %w: it is no file of at most %d bytes", path, ErrSnapshot, SnapshotMax)
	}
	raw := make([]byte, info.Size())
	if _, err := io.ReadFull(file, raw); err != nil {
		return Snapshot{}, fmt.Errorf("reading a snapshot: %w", err)
	}
	s, err := parseSnapshot(raw)
	if err != nil {
		return Snapshot{}, fmt.Errorf("reading a snapshot: %s: %w: %w", path, ErrSnapshot, err)
	}
	return s, nil
}

// parseSnapshot checks the whole before it looks at a part.
func parseSnapshot(raw []byte) (Snapshot, error) {
	const head = len(snapshotMagic) + 1
	switch {
	case !bytes.HasPrefix(raw, []byte(snapshotMagic)):
		return Snapshot{}, errors.New("it is none of Muster's")
	case len(raw) < head+1+sha256.Size:
		return Snapshot{}, errors.New("it is cut off")
	case raw[head-1] != snapshotVersion:
		return Snapshot{}, fmt.Errorf("it has the form %d, want %d", raw[head-1], snapshotVersion)
	}
	body, sum := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) {
		return Snapshot{}, errors.New("it is cut off or was changed: the checksum is wrong")
	}
	p := snapshotParser{rest: body[head:], words: make(map[string]string), snapshot: Snapshot{
		Zones: make(map[string][]Batch), Serials: make(map[string]uint32), Health: make(map[string][]HealthMark),
	}}
	for p.next() {
	}
	if p.err != nil {
		return Snapshot{}, p.err
	}
	return p.snapshot, nil
}

// snapshotParser reads the sections of a snapshot whose sum is right.
type snapshotParser struct {
	rest     []byte
	err      error
	snapshot Snapshot
	zone     string // whose records are being read
	page     *Batch // the last of the zone; nil before the first zone
	left     int    // instances of the zone that are still to come
	words    map[string]string
}

// next reads one section; false at the end or at an error.
func (p *snapshotParser) next() bool {
	if len(p.rest) == 1 && p.rest[0] == tagEnd {
		return false
	}
	if len(p.rest) < 5 || uint64(binary.BigEndian.Uint32(p.rest[1:])) > uint64(len(p.rest)-5) {
		p.err = errors.New("a section is cut off")
		return false
	}
	tag, size := p.rest[0], int(binary.BigEndian.Uint32(p.rest[1:]))
	d := &unpacker{in: p.rest[5 : 5+size], words: p.words}
	p.rest = p.rest[5+size:]
	if !p.section(tag, d) || d.bad || len(d.in) > 0 {
		p.err = fmt.Errorf("a section with the tag %d is malformed", tag)
	}
	return p.err == nil
}

// section reads the body of one section; false when it may not stand there.
func (p *snapshotParser) section(tag byte, d *unpacker) bool {
	switch tag {
	case tagHead:
		p.snapshot.Written = d.time()
		for range d.uint(StoresMax) {
			p.snapshot.Stores = append(p.snapshot.Stores, d.string())
		}
		return true
	case tagSerial:
		zone := d.string()
		p.snapshot.Serials[zone] = uint32(d.uint(1<<32 - 1))
		return true
	case tagZone:
		p.zone = d.string()
		page := Batch{Revision: d.int(), AsOf: d.time(), Reset: true, Snapshot: true}
		p.left = int(d.uint(uint64(len(p.rest)))) // an instance takes more than a byte
		p.begin(page)
		return true
	}
	if p.page == nil {
		return false
	}
	p.turn()
	switch tag {
	case tagInstance:
		p.page.Instances = append(p.page.Instances, d.instance())
	case tagService:
		p.page.Services = append(p.page.Services, d.service())
	case tagAdmin:
		p.page.Admin = append(p.page.Admin, d.admin())
	case tagRoute:
		p.page.Routes = append(p.page.Routes, d.route())
	case tagNote:
		p.page.Notes = append(p.page.Notes, d.note())
	case tagHealth:
		p.snapshot.Health[p.zone] = append(p.snapshot.Health[p.zone], d.health())
	default:
		return false
	}
	return true
}

// begin begins a page of the zone.
func (p *snapshotParser) begin(page Batch) {
	size := min(p.left, PageMax)
	p.left -= size
	page.Instances = slices.Grow(page.Instances, size)
	pages := append(p.snapshot.Zones[p.zone], page)
	p.snapshot.Zones[p.zone] = pages
	p.page = &pages[len(pages)-1]
}

// turn begins the next page when this one is full.
func (p *snapshotParser) turn() {
	if len(p.page.Instances)+len(p.page.Services)+len(p.page.Admin)+len(p.page.Routes)+len(p.page.Notes) < PageMax {
		return
	}
	next := Batch{Revision: p.page.Revision, AsOf: p.page.AsOf, Snapshot: true}
	p.page.More = true
	p.begin(next)
}
