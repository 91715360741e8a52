package zonefile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
)

var (
	errNotRegular = errors.New("not a regular file")
	errIncludes   = fmt.Errorf("more than %d $INCLUDE lines followed", includesMax)
	errOctets     = fmt.Errorf("more than %d octets to read", octetsMax)
)

// source is where the parser reads from: the file, and the files that it
// includes. It knows the line that was read last, which the parser does not
// tell of records, and holds the limits.
type source struct {
	dir    string // what names in messages are relative to
	fsys   fs.FS  // nil: no $INCLUDE
	open   []*input
	opened int
	octets int
	made   int // records of $GENERATE
	// stood are the lines of entries of types that the parser does not know.
	stood map[place]*stand
	// unclosed is where a file ended within parentheses; nil: none did.
	unclosed *record
}

// input is one open file. Only its ReadByte is used once the parser has it.
type input struct {
	*bufio.Reader
	src    *source
	closer fs.File
	name   string
	line   int // lines begun
	entry  entry
	text   string     // what a directive was made into, and was not read yet
	made   *generator // what makes more of it; nil: nothing
}

var (
	_ fs.FS         = (*source)(nil)
	_ fs.File       = (*input)(nil)
	_ io.ByteReader = (*input)(nil)
)

// path is a file's name for messages.
func (s *source) path(name string) string { return filepath.Join(s.dir, name) }

// at is where the parser has come to.
func (s *source) at() (file string, line int) {
	in := s.open[len(s.open)-1]
	return s.path(in.name), in.line
}

// place is that in other words.
func (s *source) place() place {
	in := s.open[len(s.open)-1]
	return place{in.name, in.line}
}

func (s *source) push(r io.Reader, name string) *input {
	in := &input{Reader: bufio.NewReader(r), src: s, name: name, entry: entry{begins: true, newline: true}}
	s.open = append(s.open, in)
	return in
}

// Open opens the zone's file or one that it includes.
func (s *source) Open(name string) (fs.File, error) {
	if s.opened > includesMax {
		return nil, errIncludes
	}
	s.opened++
	f, err := s.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	in := s.push(f, name)
	in.closer = f
	return in, nil
}

// ReadByte is the next octet of the file, or of what a directive makes.
func (in *input) ReadByte() (byte, error) {
	if in.text == "" && in.made != nil {
		if err := in.generate(); err != nil {
			return 0, err
		}
	}
	if in.text == "" {
		begins := in.entry.begins
		c, err := in.readByte()
		if err != nil || !begins {
			return c, err
		}
		if c != '$' {
			if err := in.stand(c); err != nil {
				return 0, err
			}
		} else if err := in.directive(); err != nil {
			return 0, err
		}
		if in.text == "" {
			return c, nil
		}
	}
	c := in.text[0]
	in.text = in.text[1:]
	return c, nil
}

// readByte reads from the file, and counts octets and lines.
func (in *input) readByte() (byte, error) {
	if in.src.octets >= octetsMax {
		return 0, errOctets
	}
	in.src.octets++
	c, err := in.Reader.ReadByte()
	if errors.Is(err, io.EOF) && in.entry.open > 0 {
		in.src.unclosed = &record{file: in.src.path(in.name), line: in.line}
	}
	if errors.Is(err, io.EOF) && !in.entry.newline {
		// The parser takes a record that the file ends before the data of for one of a
		// dynamic update (RFC 2136), which has none.
		in.entry.next('\n')
		return '\n', nil
	}
	if err == nil && in.entry.newline {
		in.line++
	}
	in.entry.next(c)
	return c, err
}

// Stat is never called by the parser.
func (in *input) Stat() (fs.FileInfo, error) { return in.closer.Stat() }

// Close leaves the file for the one that included it.
func (in *input) Close() error {
	for i, o := range in.src.open {
		if o == in && i > 0 {
			in.src.open = append(in.src.open[:i], in.src.open[i+1:]...)
			break
		}
	}
	return in.closer.Close()
}
