package doh

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Limits of a connection of HTTP/2, beside those in doh.go.
const (
	streamsMax   = 100     // RFC 9113 section 6.5.2: at least that many are to be let in
	windowStart  = 1 << 16 // RFC 9113 section 6.9.2, and one octet more than it has
	windowMax    = 1<<31 - 1
	streamWindow = 1 << 17 // for what a client may send on a stream: more than the longest message
	frameMax     = 16 << 10
	giveBack     = windowStart / 4 // octets received until the client may send as many again
	frameHeader  = 9
	deadlineStep = time.Second // how much sooner than it should a deadline may come
)

// h2Conn is a connection of HTTP/2 (RFC 9113), as far as questions need it. One goroutine
// reads frames and answers at once what can be; it writes when it has nothing more to
// read. net/http has three goroutines and as many turns of a scheduler for each question,
// which costs several times what the answer does.
type h2Conn struct {
	srv     *Server
	nc      net.Conn
	tls     tls.ConnectionState
	from    netip.AddrPort
	ctx     context.Context //nolint:containedctx // of the connection, for what it begins
	handler http.Handler    // for what is no plain question
	in      *bufio.Reader
	due     time.Time // deadline that was last set, of reading

	mu        sync.Mutex // guards what follows, and writing
	out       *bufio.Writer
	framer    *http2.Framer // its reading side is the reader's alone
	encoder   *hpack.Encoder
	block     bytes.Buffer // of the encoder
	streams   map[uint32]*h2Stream
	last      uint32 // the greatest stream that the client opened
	half      int    // streams whose request has not come in whole
	waiting   int    // streams that wait for an answer, or for the client to take it
	progress  time.Time
	window    int64 // octets that may be sent
	initial   int64 // the same of a new stream
	frame     int   // the longest frame that the client takes
	credit    int64 // octets that the client may send
	owed      int64 // octets received since credit was last given
	closing   bool  // no more streams are opened
	resets    [16]uint32
	nextReset int
	dueOut    time.Time
	date      string
	dateOf    int64 // the second
}

// errEnd ends a connection in order.
var errEnd = errors.New("the connection is over")

// serveHTTP2 serves a connection that has agreed on HTTP/2.
func (s *Server) serveHTTP2(_ *http.Server, nc *tls.Conn, h http.Handler) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := &h2Conn{
		srv: s, nc: nc, tls: nc.ConnectionState(), ctx: ctx, handler: h, in: bufio.NewReaderSize(nc, 4<<10), out: bufio.NewWriterSize(nc, 4<<10),
		streams: map[uint32]*h2Stream{}, progress: time.Now(), window: windowStart - 1, initial: windowStart - 1, frame: frameMax, credit: windowStart - 1,
	}
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		c.from = a.AddrPort()
	}
	c.encoder = hpack.NewEncoder(&c.block)
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil) // RFC 9113 section 6.5.2: SETTINGS_HEADER_TABLE_SIZE
	c.framer.MaxHeaderListSize = headersMax
	c.framer.SetMaxReadFrameSize(frameMax)
	c.framer.SetReuseFrames()
	if !s.track(c, true) {
		return
	}
	defer s.track(c, false)
	c.run()
	nc.Close()
}

// run reads until the connection is over.
func (c *h2Conn) run() {
	err := c.greet()
	for err == nil {
		var f http2.Frame
		if f, err = c.read(); err == nil {
			err = c.take(f)
		} else {
			err = c.misread(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var code http2.ConnectionError
	switch {
	case errors.As(err, &code):
		_ = c.framer.WriteGoAway(c.last, http2.ErrCode(code), nil) // RFC 9113 section 5.4.1
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.closing:
		_ = c.framer.WriteGoAway(c.last, http2.ErrCodeNo, nil)
	}
	_ = c.flush() // the client may have gone
	c.streams = nil
}

// greet exchanges the prefaces (RFC 9113 section 3.4).
func (c *h2Conn) greet() error {
	c.mu.Lock()
	err := c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streamsMax},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: frameMax},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: headersMax},
	)
	err = errors.Join(err, c.flush())
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.due = time.Now().Add(headerTimeout)
	if err := c.nc.SetReadDeadline(c.due); err != nil {
		return err
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.in, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	f, err := c.framer.ReadFrame()
	if err != nil {
		return c.misread(err)
	}
	if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return c.take(f)
}

// read reads a frame. When it is not there in whole, what is to be sent goes out first.
func (c *h2Conn) read() (http2.Frame, error) {
	if !c.whole() {
		if err := c.rest(); err != nil {
			return nil, err
		}
	}
	return c.framer.ReadFrame()
}

// whole reports whether the next frame has come.
func (c *h2Conn) whole() bool {
	if c.in.Buffered() < frameHeader {
		return false
	}
	head, err := c.in.Peek(frameHeader)
	return err == nil && c.in.Buffered() >= frameHeader+int(head[0])<<16+int(binary.BigEndian.Uint16(head[1:]))
}

// rest writes what there is, and sets until when the client has time.
func (c *h2Conn) rest() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.flush(); err != nil {
		return err
	}
	if c.closing && len(c.streams) == 0 {
		return errEnd
	}
	due := time.Now().Add(idleTimeout)
	switch {
	case c.half > 0:
		due = c.progress.Add(requestTimeout)
	case c.waiting > 0:
		due = c.progress.Add(requestTimeout + writeTimeout)
	}
	if d := due.Sub(c.due); d > deadlineStep || d < 0 {
		c.due = due
		return c.nc.SetReadDeadline(due)
	}
	return nil
}

// flush writes what there is. The lock is held.
func (c *h2Conn) flush() error {
	if c.out.Buffered() == 0 {
		return nil
	}
	if due := time.Now().Add(writeTimeout); due.Sub(c.dueOut) > deadlineStep {
		c.dueOut = due
		if err := c.nc.SetWriteDeadline(due); err != nil {
			return err
		}
	}
	return c.out.Flush()
}

// misread is what becomes of a frame that could not be read: an error of a stream ends
// only that.
func (c *h2Conn) misread(err error) error {
	var stream http2.StreamError
	switch {
	case errors.As(err, &stream):
		c.mu.Lock()
		defer c.mu.Unlock()
		c.last = max(c.last, stream.StreamID)
		return c.reset(stream.StreamID, stream.Code)
	case errors.Is(err, http2.ErrFrameTooLarge):
		return http2.ConnectionError(http2.ErrCodeFrameSize) // RFC 9113 section 4.2
	}
	return err
}

// retire opens no more streams, and ends the connection with the last of those that are
// open (RFC 9113 section 6.8).
func (c *h2Conn) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	c.closing = true
	_ = c.framer.WriteGoAway(c.last, http2.ErrCodeNo, nil)
	_ = c.flush() // the client may have gone
	c.wake()
}

// wake has the reader look whether the connection is over. The lock is held.
func (c *h2Conn) wake() {
	if c.closing && len(c.streams) == 0 {
		_ = c.nc.SetReadDeadline(time.Now()) // fails only once closed
	}
}
