package http1

import (
	"bytes"
	"io"
)

// Reader reads messages from one side of a connection through one buffer. It is
// not safe for concurrent use. Zero is not usable; see Reset.
type Reader struct {
	src     io.Reader
	buf     []byte
	r, w    int // what is read and not used yet is buf[r:w]
	scanned int // of that, what Scan has looked at
	line    int // where the line begins that Scan is in, from r
	skipped bool
}

// Reset makes the Reader read from src through buf, of which nothing else may
// use a part until it is reset again.
func (r *Reader) Reset(src io.Reader, buf []byte) { *r = Reader{src: src, buf: buf} }

// Buffer is the buffer of Reset, or a larger one that took its place.
func (r *Reader) Buffer() []byte { return r.buf }

// Took says that n bytes were read into the buffer by other hands, when nothing was
// buffered.
func (r *Reader) Took(n int) { r.w = n }

// Buffered is what is read and not used yet. It is valid until the next call.
func (r *Reader) Buffered() []byte { return r.buf[r.r:r.w] }

// Discard uses n bytes of what is buffered.
func (r *Reader) Discard(n int) {
	r.r += n
	r.scanned, r.line = 0, 0
	if r.r == r.w {
		r.r, r.w = 0, 0
	}
}

// Fill reads once from the source, at whose end it fails. What is not used it
// keeps: the caller bounds how much that may be.
func (r *Reader) Fill() error {
	if r.w == len(r.buf) {
		if r.r == 0 {
			r.grow(2 * len(r.buf))
		} else {
			copy(r.buf, r.buf[r.r:r.w])
			r.w -= r.r
			r.r = 0
		}
	}
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// Scan looks for the end of a head in what is buffered and returns its length;
// 0 while more is to be read, for which it then makes room. A bare LF or CR is
// an error as soon as it is seen, and so is a head of more than limit bytes, or its
// first line.
func (r *Reader) Scan(limit int) (int, error) {
	b := r.buf[r.r:r.w]
	for {
		lf := bytes.IndexByte(b[r.scanned:], '\n')
		if lf < 0 {
			r.scanned = len(b)
			break
		}
		lf += r.scanned
		r.scanned = lf + 1
		if lf == 0 || b[lf-1] != '\r' {
			return 0, malformed("a line does not end in CRLF") // RFC 9112 section 2.2
		}
		if lf-1 == r.line {
			if lf+1 > limit {
				return 0, &Error{431, "the head is too large"}
			}
			return lf + 1, nil
		}
		r.line = lf + 1
	}
	if len(b) >= limit {
		if r.line == 0 {
			return 0, &Error{414, "the first line is too long"} // RFC 9112 section 3
		}
		return 0, &Error{431, "the head is too large"}
	}
	if r.r > 0 && r.w == len(r.buf) {
		copy(r.buf, b)
		r.r, r.w = 0, len(b)
	} else if r.w == len(r.buf) {
		r.grow(min(2*len(r.buf), max(limit, len(r.buf)+1)))
	}
	return 0, nil
}

// grow takes a larger buffer. r.r is 0.
func (r *Reader) grow(size int) {
	larger := make([]byte, size)
	copy(larger, r.buf[:r.w])
	r.buf = larger
}

// SkipEmptyLine drops one CRLF before each request line, which old clients send
// after a body (RFC 9112 section 2.2).
func (r *Reader) SkipEmptyLine() {
	if b := r.Buffered(); !r.skipped && len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		r.Discard(2)
		r.skipped = true
	}
}

// Head uses the n bytes that Scan found and returns them.
func (r *Reader) Head(n int) string {
	head := string(r.buf[r.r : r.r+n])
	r.Discard(n)
	r.skipped = false
	return head
}

// Read takes from the buffer first and then from the source.
func (r *Reader) Read(p []byte) (int, error) {
	if r.r == r.w {
		return r.src.Read(p)
	}
	n := copy(p, r.buf[r.r:r.w])
	r.Discard(n)
	return n, nil
}
