package doh

import (
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/musterdns/muster/dnsserver/wire"
)

// h2Stream is a stream: one request and its answer.
type h2Stream struct {
	c       *h2Conn
	id      uint32
	method  string
	path    string
	host    string
	typ     string              // content type
	fields  []hpack.HeaderField // but for those that begin with a colon
	length  int64               // of the body as the client says; -1: it does not
	body    []byte
	got     int64 // octets of the body
	ended   bool  // the request has come in whole
	replied bool  // the answer is on its way
	later   once  // the answer, if it has to be waited for
	credit  int64 // octets that the client may send
	window  int64 // octets that may be sent
	out     []byte
}

// take does what a frame asks for.
func (c *h2Conn) take(f http2.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return c.headers(f)
	case *http2.DataFrame:
		return c.data(f)
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.WindowUpdateFrame:
		return c.widen(f)
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		return c.framer.WritePing(true, f.Data)
	case *http2.RSTStreamFrame:
		if f.StreamID > c.last {
			return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113 section 6.4: it is idle
		}
		c.forget(f.StreamID)
		return nil
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return c.reset(f.StreamID, http2.ErrCodeProtocol) // RFC 7540 section 5.3.1
		}
		return nil
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113 section 8.4
	case *http2.GoAwayFrame:
		c.closing = true
		return nil
	default:
		return nil // RFC 9113 section 4.1
	}
}

// headers opens a stream, or ends one's request.
func (c *h2Conn) headers(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113 section 5.1.1
	}
	if s := c.streams[id]; s != nil {
		switch {
		case s.ended:
			return c.reset(id, http2.ErrCodeStreamClosed) // RFC 9113 section 5.1
		case !f.StreamEnded() || len(f.PseudoFields()) > 0:
			return c.reset(id, http2.ErrCodeProtocol) // RFC 9113 section 8.1
		}
		return c.complete(s)
	}
	if id <= c.last {
		if c.wasReset(id) {
			return nil
		}
		return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113 section 5.1.1
	}
	c.last = id
	if c.closing {
		return nil // RFC 9113 section 6.8
	}
	if len(c.streams) >= streamsMax {
		return c.reset(id, http2.ErrCodeRefusedStream) // RFC 9113 section 5.1.2
	}
	if f.HasPriority() && f.Priority.StreamDep == id {
		return c.reset(id, http2.ErrCodeProtocol) // RFC 7540 section 5.3.1
	}
	s := &h2Stream{c: c, id: id, length: -1, credit: streamWindow, window: c.initial}
	if !s.request(f) {
		return c.reset(id, http2.ErrCodeProtocol) // RFC 9113 section 8.1.1
	}
	if len(c.streams) == 0 {
		c.progress = time.Now()
	}
	c.streams[id] = s
	c.half++
	if f.Truncated {
		return s.error(431, "the header is too long") // RFC 6585 section 5
	}
	if f.StreamEnded() {
		return c.complete(s)
	}
	return nil
}

// request takes in a request's header; false: it is malformed.
func (s *h2Stream) request(f *http2.MetaHeadersFrame) bool {
	s.method, s.path, s.host = f.PseudoValue("method"), f.PseudoValue("path"), f.PseudoValue("authority")
	pseudo := 3
	if s.host != "" {
		pseudo++
	}
	// RFC 9113 section 8.3.1.
	if s.method == "" || s.path == "" || f.PseudoValue("scheme") == "" || len(f.PseudoFields()) != pseudo {
		return false
	}
	s.fields = f.RegularFields()
	for _, h := range s.fields {
		switch h.Name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return false // RFC 9113 section 8.2.2
		case "te":
			if h.Value != "trailers" {
				return false
			}
		case "content-type":
			s.typ = h.Value
		case "content-length":
			n, err := strconv.ParseUint(h.Value, 10, 62)
			if err != nil || s.length >= 0 && s.length != int64(n) {
				return false
			}
			s.length = int64(n)
		}
	}
	return true
}

// data takes in a part of a request's body.
func (c *h2Conn) data(f *http2.DataFrame) error {
	id, size := f.StreamID, int64(f.Length) // with its padding: RFC 9113 section 6.9.1
	if id > c.last || id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113 section 5.1: it is idle
	}
	if c.credit -= size; c.credit < 0 {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	if c.owed += size; c.owed >= giveBack {
		if err := c.framer.WriteWindowUpdate(0, uint32(c.owed)); err != nil {
			return err
		}
		c.credit, c.owed = c.credit+c.owed, 0
	}
	s := c.streams[id]
	if s == nil && c.wasReset(id) {
		return nil
	}
	if s == nil || s.ended {
		return c.reset(id, http2.ErrCodeStreamClosed) // RFC 9113 section 6.1
	}
	if s.credit -= size; s.credit < 0 {
		return c.reset(id, http2.ErrCodeFlowControl)
	}
	s.got += int64(len(f.Data()))
	if s.got <= wire.MaxMessage {
		s.body = append(s.body, f.Data()...)
	}
	if f.StreamEnded() {
		return c.complete(s)
	}
	if s.got > wire.MaxMessage && !s.replied {
		return s.error(413, "a message has 65535 octets at most")
	}
	return nil
}

// complete answers a request that has come in whole.
func (c *h2Conn) complete(s *h2Stream) error {
	s.ended = true
	c.half--
	c.waiting++
	c.progress = time.Now()
	switch {
	case s.length >= 0 && s.length != s.got:
		return c.reset(s.id, http2.ErrCodeProtocol) // RFC 9113 section 8.1.1
	case s.replied:
		return c.pump(s)
	}
	return s.serve()
}

// settings takes in the client's settings (RFC 9113 section 6.5).
func (c *h2Conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	err := f.ForeachSetting(func(v http2.Setting) error {
		if err := v.Valid(); err != nil {
			return err
		}
		switch v.ID {
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSize(min(v.Val, 4096))
		case http2.SettingMaxFrameSize:
			c.frame = int(min(v.Val, frameMax))
		case http2.SettingInitialWindowSize:
			more := int64(v.Val) - c.initial
			c.initial = int64(v.Val)
			for _, s := range c.streams {
				if s.window += more; s.window > windowMax {
					return http2.ConnectionError(http2.ErrCodeFlowControl) // RFC 9113 section 6.9.2
				}
			}
		default: // the others are of no use to a server without pushes
		}
		return nil
	})
	if err == nil {
		err = c.framer.WriteSettingsAck()
	}
	if err == nil {
		err = c.pumpAll()
	}
	return err
}

// widen takes in how much more may be sent (RFC 9113 section 6.9).
func (c *h2Conn) widen(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > windowMax {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		return c.pumpAll()
	}
	s := c.streams[f.StreamID]
	switch {
	case f.StreamID > c.last:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case s == nil:
		return nil // it may come after the end
	}
	if s.window += int64(f.Increment); s.window > windowMax {
		return c.reset(s.id, http2.ErrCodeFlowControl)
	}
	return c.pump(s)
}

// reset ends a stream with an error. What the client has sent before it knows is left
// unread (RFC 9113 section 5.1).
func (c *h2Conn) reset(id uint32, code http2.ErrCode) error {
	c.forget(id)
	c.resets[c.nextReset] = id
	c.nextReset = (c.nextReset + 1) % len(c.resets)
	return c.framer.WriteRSTStream(id, code)
}

// wasReset reports whether a stream is one of the last that were reset.
func (c *h2Conn) wasReset(id uint32) bool { return slices.Contains(c.resets[:], id) }

// forget ends a stream.
func (c *h2Conn) forget(id uint32) {
	s := c.streams[id]
	if s == nil {
		return
	}
	delete(c.streams, id)
	if !s.ended {
		c.half--
	} else {
		c.waiting--
	}
	c.wake()
}
