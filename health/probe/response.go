package probe

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

const (
	// headerMax and bodyMax bound what is read of a response, in octets. What a
	// body has beyond is left unread and does not matter.
	headerMax = 16 << 10
	bodyMax   = 64 << 10
	// informationalMax is how many 1xx responses may come before the final one.
	informationalMax = 5
)

var (
	errHeaderMax     = errors.New("response header above " + strconv.Itoa(headerMax) + " octets")
	errInformational = errors.New("more informational responses than a check waits for")
	errMalformed     = errors.New("malformed HTTP response")
	errBodyMax       = errors.New("body longer than is read")
)

// response is what a check looks at in an HTTP/1 response.
type response struct {
	code    int
	status  string // as in the status line: "200 OK"
	length  int64  // of the body; -1: it says nothing
	chunked bool
	keep    bool // the connection may be used again (RFC 9112 section 9.3)
	load    float64
}

// reader reads a response from a connection through a buffer of its own.
type reader struct {
	from       io.Reader
	buf        []byte
	start, end int // of what is not consumed
	left       int // octets that may still be read
	began      bool
}

// readers keeps readers for the next checks.
type readers struct{ pool sync.Pool }

// get reads from a connection of which nothing was read ahead.
func (rs *readers) get(from io.Reader) *reader {
	b, ok := rs.pool.Get().(*reader)
	if !ok {
		b = &reader{buf: make([]byte, headerMax)}
	}
	b.from, b.start, b.end, b.left, b.began = from, 0, 0, headerMax, false
	return b
}

// put takes a reader back.
func (rs *readers) put(b *reader) {
	b.from = nil
	rs.pool.Put(b)
}

// fill reads once more, behind what is there.
func (b *reader) fill() error {
	if b.start > 0 {
		b.end = copy(b.buf, b.buf[b.start:b.end])
		b.start = 0
	}
	room := b.buf[b.end:]
	if len(room) > b.left {
		room = room[:b.left]
	}
	if len(room) == 0 {
		return errBodyMax
	}
	n, err := b.from.Read(room)
	b.end += n
	b.left -= n
	b.began = b.began || n > 0
	if n > 0 {
		return nil
	}
	return err
}

// line is the next line, without its end. It is good until the next call. A
// line feed alone ends a line too (RFC 9112 section 2.2).
func (b *reader) line() ([]byte, error) {
	for seen := b.start; ; {
		if i := bytes.IndexByte(b.buf[seen:b.end], '\n'); i >= 0 {
			line := b.buf[b.start : seen+i]
			b.start = seen + i + 1
			line = bytes.TrimSuffix(line, []byte{'\r'})
			if bytes.ContainsAny(line, "\r\x00") {
				return nil, errMalformed
			}
			return line, nil
		}
		pending := b.end - b.start
		if err := b.fill(); err != nil {
			return nil, err
		}
		seen = b.start + pending
	}
}

// header reads the final response's status line and header.
func (b *reader) header(method string) (response, error) {
	for range informationalMax + 1 {
		r, err := b.head()
		if errors.Is(err, errBodyMax) {
			err = errHeaderMax
		}
		if err != nil {
			return r, err
		}
		if r.code >= http.StatusOK {
			// RFC 9112 section 6.3: no body, whatever the header says.
			if method == http.MethodHead || r.code == http.StatusNoContent || r.code == http.StatusNotModified {
				r.length, r.chunked = 0, false
			}
			return r, nil
		}
	}
	return response{}, errInformational
}

// head reads one status line and header.
func (b *reader) head() (response, error) {
	line, err := b.line()
	if err != nil {
		return response{}, err
	}
	r, err := statusLine(line)
	if err != nil {
		return r, err
	}
	for {
		line, err := b.line()
		if err != nil {
			return r, err
		}
		if len(line) == 0 {
			if r.chunked && r.length >= 0 {
				r.length, r.keep = -1, false // RFC 9112 section 6.3: both is an error or an attack
			}
			return r, nil
		}
		if err := r.field(line); err != nil {
			return r, err
		}
	}
}

// statusLine reads "HTTP/1.1 200 OK" (RFC 9112 section 4), with or without the
// words.
func statusLine(line []byte) (response, error) {
	const version, code = len("HTTP/1.1 "), len("200")
	if len(line) < version+code || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > version+code && line[version+code] != ' ' {
		return response{}, errMalformed
	}
	n, err := strconv.Atoi(string(line[version : version+code]))
	if err != nil || n < 100 || line[version] < '1' {
		return response{}, errMalformed
	}
	r := response{code: n, length: -1, keep: line[7] == '1', load: -1}
	if words := bytes.TrimSpace(line[version+code:]); len(words) > 0 {
		r.status = string(line[version:])
	} else {
		r.status = strings.TrimSpace(strconv.Itoa(n) + " " + http.StatusText(n))
	}
	return r, nil
}

// field takes what matters of a header field.
func (r *response) field(line []byte) error {
	name, value, ok := bytes.Cut(line, []byte{':'})
	if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t") { // RFC 9112 sections 5.1 and 5.2
		return errMalformed
	}
	value = bytes.Trim(value, " \t")
	switch {
	case isField(name, "Content-Length"):
		n, err := strconv.ParseUint(string(value), 10, 62)
		if err != nil || r.length >= 0 && r.length != int64(n) {
			return errMalformed
		}
		r.length = int64(n)
	case isField(name, "Transfer-Encoding"):
		if !bytes.EqualFold(value, []byte("chunked")) || r.chunked {
			return errMalformed // no other coding was asked for
		}
		r.chunked = true
	case isField(name, "Connection"):
		for option := range bytes.SplitSeq(value, []byte{','}) {
			r.keep = r.keep && !bytes.EqualFold(bytes.TrimSpace(option), []byte("close"))
		}
	case isField(name, loadHeader):
		r.load = parseLoad(string(value))
	case isField(name, orcaHeader) && r.load < 0:
		r.load = parseORCA(string(value))
	}
	return nil
}

func isField(name []byte, want string) bool {
	return len(name) == len(want) && strings.EqualFold(string(name), want)
}

// body reads the body, its first bodyMax octets at least; whole is false when
// there is more.
func (b *reader) body(r *response) (whole bool, err error) {
	b.left = max(0, bodyMax-(b.end-b.start))
	switch {
	case r.chunked:
		err = b.chunks()
	case r.length >= 0:
		err = b.skip(r.length)
	default:
		for err == nil {
			b.start = b.end
			err = b.fill()
		}
		if errors.Is(err, io.EOF) {
			return false, nil // the connection's end is the body's
		}
	}
	if errors.Is(err, errBodyMax) {
		return false, nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err == nil, err
}

// skip consumes n octets.
func (b *reader) skip(n int64) error {
	for {
		have := min(n, int64(b.end-b.start))
		b.start += int(have)
		if n -= have; n == 0 {
			return nil
		}
		if err := b.fill(); err != nil {
			return err
		}
	}
}

// chunks consumes a chunked body with its trailer (RFC 9112 section 7.1).
func (b *reader) chunks() error {
	for {
		line, err := b.line()
		if err != nil {
			return err
		}
		size, _, _ := bytes.Cut(line, []byte{';'})
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 62)
		if err != nil {
			return errMalformed
		}
		if n == 0 {
			break
		}
		if err := b.skip(int64(n)); err != nil {
			return err
		}
		if end, err := b.line(); err != nil || len(end) > 0 {
			return errors.Join(err, errMalformed)
		}
	}
	for {
		if line, err := b.line(); err != nil || len(line) == 0 {
			return err
		}
	}
}
