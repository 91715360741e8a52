package http1

import (
	"bytes"
	"io"
)

const (
	// chunkLineMax bounds the line before a chunk. Extensions are dropped; who
	// sends long ones wants something else (RFC 9112 section 7.1.1).
	chunkLineMax = 256
	// extensionsMax bounds the bytes of extensions of one body, so that no body
	// is made of them.
	extensionsMax = 16 << 10
	// trailersMax bounds a trailer section.
	trailersMax = 8 << 10
)

// Body reads the body that follows a head. Zero is an empty one.
type Body struct {
	// Trailers are the fields after a chunked body, once Read has returned
	// io.EOF.
	Trailers []Field

	r        *Reader
	framing  Framing
	left     int64 // of the body, or of the chunk
	begun    bool  // a chunk was read, whose end is due
	done     bool
	overhead int
	err      error
}

// Reset makes the Body read what follows a head that was read from r.
func (b *Body) Reset(r *Reader, framing Framing, length int64) {
	*b = Body{r: r, framing: framing, left: length, done: framing == NoBody, Trailers: b.Trailers[:0]}
}

// Done reports whether the whole body was read, so that another message may
// follow.
func (b *Body) Done() bool { return b.done && b.err == nil }

// Err is the error, other than io.EOF, that ended the body.
func (b *Body) Err() error { return b.err }

// Left is how many bytes of a body of a known length are still to be read; -1
// when it is not known.
func (b *Body) Left() int64 {
	switch {
	case b.done:
		return 0
	case b.framing == Length:
		return b.left
	default:
		return -1
	}
}

// Skip notes that n bytes of a body of a known length were taken from the
// source past Read.
func (b *Body) Skip(n int64) {
	b.left -= n
	b.done = b.left == 0
}

// Ready reports whether Read returns without reading from the source.
func (b *Body) Ready() bool {
	buffered := b.r.Buffered()
	switch {
	case b.done || b.err != nil:
		return true
	case b.framing != Chunked || b.left > 0:
		return len(buffered) > 0
	}
	if b.begun {
		if len(buffered) < 2 {
			return false
		}
		buffered = buffered[2:]
	}
	lf := bytes.IndexByte(buffered, '\n')
	if lf < 0 {
		return false
	}
	rest := buffered[lf+1:]
	if buffered[0] == '0' { // the last chunk, or one that is malformed
		return bytes.HasPrefix(rest, []byte("\r\n")) || bytes.Contains(rest, []byte("\r\n\r\n"))
	}
	return len(rest) > 0
}

// Read reads from the body. io.ErrUnexpectedEOF means that the connection ended
// within it, an *Error that it is malformed.
func (b *Body) Read(p []byte) (int, error) {
	switch {
	case b.err != nil:
		return 0, b.err
	case b.done:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	switch b.framing {
	case Length:
		return b.readLength(p)
	case Chunked:
		return b.readChunked(p)
	case ToClose:
		n, err := b.r.Read(p)
		if n == 0 && err == io.EOF { //nolint:errorlint // a Reader's own end
			b.done = true
		} else if err != nil && n == 0 {
			b.err = err
		}
		if n > 0 {
			err = nil
		}
		return n, err
	default:
		b.done = true
		return 0, io.EOF
	}
}

func (b *Body) readLength(p []byte) (int, error) {
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if b.left == 0 {
		b.done = true
		return n, nil
	}
	if n > 0 {
		return n, nil
	}
	return 0, b.fail(err)
}

// fail notes what ended the body.
func (b *Body) fail(err error) error {
	if err == io.EOF || err == nil { //nolint:errorlint // a Reader's own end
		err = io.ErrUnexpectedEOF
	}
	b.err = err
	return err
}

func (b *Body) readChunked(p []byte) (int, error) {
	for b.left == 0 {
		if err := b.nextChunk(); err != nil {
			return 0, b.fail(err)
		}
		if b.done {
			return 0, io.EOF
		}
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if n > 0 {
		return n, nil
	}
	return 0, b.fail(err)
}

// nextChunk reads the line of the next chunk, and the trailers after the last
// (RFC 9112 section 7.1).
func (b *Body) nextChunk() error {
	if b.begun {
		line, err := b.line(2)
		if err != nil {
			return err
		}
		if len(line) != 0 {
			return malformed("a chunk is longer than it says")
		}
	}
	line, err := b.line(chunkLineMax)
	if err != nil {
		return err
	}
	size, extension, ok := parseChunkSize(line)
	if !ok {
		return malformed("a chunk's size is no hexadecimal number")
	}
	if b.overhead += extension; b.overhead > extensionsMax {
		return malformed("the chunk extensions are too long")
	}
	b.begun, b.left = true, size
	if size == 0 {
		return b.readTrailers()
	}
	return nil
}

// line reads a line of at most limit bytes, CRLF among them, and returns it
// without. It is valid until the next read.
func (b *Body) line(limit int) ([]byte, error) {
	for {
		buffered := b.r.Buffered()
		if lf := bytes.IndexByte(buffered, '\n'); lf >= 0 && lf < limit {
			if lf == 0 || buffered[lf-1] != '\r' || bytes.IndexByte(buffered[:lf-1], '\r') >= 0 {
				return nil, malformed("a line does not end in CRLF")
			}
			b.r.Discard(lf + 1)
			return buffered[:lf-1], nil
		}
		if len(buffered) >= limit {
			return nil, malformed("a chunk's line is too long, or does not end where it should")
		}
		if err := b.r.Fill(); err != nil {
			return nil, err
		}
	}
}

// parseChunkSize parses "1a;extension" and returns how long the extension is.
func parseChunkSize(line []byte) (size int64, extension int, ok bool) {
	n := 0
	for ; n < len(line); n++ {
		c := line[n]
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			// White space before a semicolon is bad but common (RFC 9112
			// section 7.1.1); nothing else may follow the digits.
			rest := bytes.TrimLeft(line[n:], " \t")
			if n == 0 || len(rest) == 0 || rest[0] != ';' || !isValue(string(rest)) {
				return 0, 0, false
			}
			return size, len(line) - n, true
		}
		if n == 15 {
			return 0, 0, false
		}
		size = size<<4 | int64(c)
	}
	return size, 0, n > 0
}

// readTrailers reads the trailer section. Fields that may not be in one are dropped.
func (b *Body) readTrailers() error {
	n := 0
	for n == 0 {
		buffered := b.r.Buffered()
		if len(buffered) >= 2 && buffered[0] == '\r' && buffered[1] == '\n' {
			b.r.Discard(2)
			b.done = true
			return nil
		}
		var err error
		if n, err = b.r.Scan(trailersMax); err != nil {
			return err
		}
		if n > 0 {
			break
		}
		if err := b.r.Fill(); err != nil {
			return err
		}
	}
	var f framing
	var err error
	if b.Trailers, err = parseFields(b.Trailers[:0], b.r.Head(n), &f); err != nil {
		return err
	}
	kept := b.Trailers[:0]
	for _, field := range b.Trailers {
		if field.Known.Trails() {
			kept = append(kept, field)
		}
	}
	b.Trailers, b.done = kept, true
	return nil
}
