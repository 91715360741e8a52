// Package zonefile reads master files (RFC 1035 section 5) into zones, and says
// by file and line what is wrong or doubtful in them.
//
// Every type that IANA has numbered and that has a form to write can be written in it, but
// for IPN; any other is written TYPE123 \# LENGTH HEX. ALIAS has the name of a host: the owner
// has the addresses of that name, whatever other types it has itself. Service bindings may
// have tls-supported-groups, within the first 1,024 octets of their entries.
//
// A record that lies outside the zone is dropped with a warning, as BIND and Knot do.
//
// A file may come from anyone: whatever it holds, reading it ends in a zone or
// in an error, within bounded memory and time, and reads no file outside the
// directory that it lies in.
package zonefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// Limits of what one zone is read from. Reaching one is an error.
const (
	octetsMax   = 1 << 30 // of all files together
	includesMax = 1000    // $INCLUDE lines followed; a file that includes itself reaches it
)

// problemsMax is how many errors, and how many warnings, are told one by one;
// the last one then says how many more there are.
const problemsMax = 50

// Warning is something in a file that is served as it stands but hardly meant.
type Warning struct {
	File string
	Line int // where the record ends
	Text string
}

// String is the warning as compilers write it.
func (w Warning) String() string { return fmt.Sprintf("%s:%d: %s", w.File, w.Line, w.Text) }

// Sign adds to the records of a zone what signs them; nil: nothing does.
type Sign func([]zones.Record) ([]zones.Record, error)

// Load reads the zone origin from the file path, and signs it if sign is not nil. $INCLUDE reaches files in the
// same directory and below it, and no others. The error tells every problem, a
// line each, beginning with file and line.
func Load(path, origin string, sign Sign) (*zones.Zone, []Warning, error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("zone file %s: %w", path, err)
	}
	defer func() { _ = root.Close() }() // nothing was written
	src := &source{dir: filepath.Dir(path), fsys: root.FS(), stood: map[place]*stand{}}
	f, err := src.Open(base)
	if err != nil {
		return nil, nil, fmt.Errorf("zone file %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	return parse(src, f, base, origin, sign)
}

// Parse reads the zone origin from r. Messages call it file; $INCLUDE is an
// error, as there is no directory to look in.
func Parse(r io.Reader, file, origin string) (*zones.Zone, []Warning, error) {
	src := &source{dir: filepath.Dir(file), stood: map[place]*stand{}}
	return parse(src, src.push(r, filepath.Base(file)), filepath.Base(file), origin, nil)
}

func parse(src *source, r io.Reader, base, origin string, sign Sign) (*zones.Zone, []Warning, error) {
	apex, err := wire.ParseName(origin)
	if err != nil {
		return nil, nil, fmt.Errorf("zone file %s: origin: %w", src.path(base), err)
	}
	l := &loader{apex: apex, names: map[string]*owner{}}
	parser := dns.NewZoneParser(r, apex.String(), base)
	if src.fsys != nil {
		parser.SetIncludeAllowed(true)
		parser.SetIncludeFS(src)
	}
	if err := l.read(parser, src); err != nil {
		return nil, nil, err
	}
	l.check(src.path(base))
	if err := errors.Join(l.problems()...); err != nil {
		return nil, l.told(), err
	}
	records := l.zoneRecords()
	if sign != nil {
		if records, err = sign(records); err != nil {
			return nil, l.told(), fmt.Errorf("zone file %s: %w", src.path(base), err)
		}
	}
	z, err := zones.NewZone(apex, records)
	if err != nil {
		return nil, l.told(), fmt.Errorf("zone file %s: %w", src.path(base), err)
	}
	return z, l.told(), nil
}
