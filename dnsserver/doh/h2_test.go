package doh_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/musterdns/muster/dnsserver/dnstest"
	"github.com/musterdns/muster/dnsserver/doh"
)

// patience bounds what must happen, on a busy machine.
const patience = 20 * time.Second

// raw is a client that writes frames.
type raw struct {
	t *testing.T
	*http2.Framer
	conn    net.Conn
	encoder *hpack.Encoder
	block   bytes.Buffer
}

// dialRaw connects and greets with settings.
func dialRaw(t *testing.T, target string, c *http.Client, settings ...http2.Setting) *raw {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	config := c.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	r := &raw{t: t, conn: conn, Framer: http2.NewFramer(conn, conn)}
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.encoder = hpack.NewEncoder(&r.block)
	_, err = conn.Write([]byte(http2.ClientPreface))
	r.must(err)
	r.must(r.WriteSettings(settings...))
	return r
}

func (r *raw) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// post opens a stream with a message; with end the request is whole.
func (r *raw) post(id uint32, body []byte, end bool, more ...string) {
	r.t.Helper()
	r.block.Reset()
	fields := append([]string{":method", "POST", ":scheme", "https", ":authority", "dns.test", ":path", doh.Path, "content-type", message}, more...)
	for i := 0; i < len(fields); i += 2 {
		r.must(r.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	r.must(r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block.Bytes(), EndHeaders: true}))
	r.must(r.WriteData(id, end, body))
}

// next is the next frame of a kind, told by want.
func (r *raw) next(what string, want func(http2.Frame) bool) http2.Frame {
	r.t.Helper()
	for {
		f, err := r.ReadFrame()
		if err != nil {
			r.t.Fatalf("%s: %v", what, err)
		}
		if want(f) {
			return f
		}
	}
}

// status is the status of the response on a stream.
func (r *raw) status(id uint32) string {
	r.t.Helper()
	return r.next(fmt.Sprintf("the response on stream %d", id), func(f http2.Frame) bool {
		_, ok := f.(*http2.MetaHeadersFrame)
		return ok && f.Header().StreamID == id
	}).(*http2.MetaHeadersFrame).PseudoValue("status")
}

// reset is with what a stream was reset.
func (r *raw) reset(id uint32) http2.ErrCode {
	r.t.Helper()
	return r.next(fmt.Sprintf("the reset of stream %d", id), func(f http2.Frame) bool {
		_, ok := f.(*http2.RSTStreamFrame)
		return ok && f.Header().StreamID == id
	}).(*http2.RSTStreamFrame).ErrCode
}

// TestServer_HTTP2_FlowControl (RFC 9113 section 6.9): no more is sent than the client
// takes, nor less.
func TestServer_HTTP2_FlowControl(t *testing.T) {
	target, c, _ := start(t)
	r := dialRaw(t, target, c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	query := packed(t, "www.example.")
	r.post(1, query, true)
	r.post(3, query, true)
	if got := r.status(1); got != "200" {
		t.Fatalf("status %s", got)
	}
	var body []byte
	for _, more := range []uint32{1, 5, 1000} {
		r.must(r.WriteWindowUpdate(1, more))
		f := r.next("data", func(f http2.Frame) bool { _, ok := f.(*http2.DataFrame); return ok }).(*http2.DataFrame)
		if f.StreamID != 1 || uint32(len(f.Data())) > more || f.StreamEnded() != (more == 1000) {
			t.Fatalf("%v with %d octets, with room for %d", f, len(f.Data()), more)
		}
		body = append(body, f.Data()...)
	}
	if m := dnstest.Unpack(t, body); len(m.Answer) != 1 {
		t.Errorf("the parts are no answer: %v", m)
	}
	// The setting is for streams that are open, too (section 6.9.2).
	r.must(r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000}))
	f := r.next("data", func(f http2.Frame) bool { _, ok := f.(*http2.DataFrame); return ok }).(*http2.DataFrame)
	if m := dnstest.Unpack(t, f.Data()); f.StreamID != 3 || len(m.Answer) != 1 {
		t.Errorf("stream %d: %v", f.StreamID, m)
	}
	r.must(r.WriteWindowUpdate(0, 1<<31-1))
	if f := r.next("the end", func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok }).(*http2.GoAwayFrame); f.ErrCode != http2.ErrCodeFlowControl {
		t.Errorf("a window that is too large: %v", f.ErrCode)
	}
}

// TestServer_HTTP2_Streams: what is wrong with one stream ends that alone.
func TestServer_HTTP2_Streams(t *testing.T) {
	target, c, _ := start(t)
	query := packed(t, "www.example.")
	r := dialRaw(t, target, c)
	r.post(1, query, true, "content-length", fmt.Sprint(len(query)+1))
	if got := r.reset(1); got != http2.ErrCodeProtocol {
		t.Errorf("a body that is too short: %v", got)
	}
	r.post(3, query, true, "connection", "close")
	if got := r.reset(3); got != http2.ErrCodeProtocol {
		t.Errorf("a field of HTTP/1.1: %v", got)
	}
	r.post(5, query, true, "content-length", "1", "content-length", "2")
	if got := r.reset(5); got != http2.ErrCodeProtocol {
		t.Errorf("two lengths: %v", got)
	}
	r.post(7, query, true, "x-long", strings.Repeat("x", 16300))
	if got := r.status(7); got != "431" {
		t.Errorf("a header that is too long: %s", got)
	}
	// So many may be open, and no more.
	for i := range uint32(100) {
		r.post(101+2*i, query, false)
	}
	r.post(301, query, false)
	if got := r.reset(301); got != http2.ErrCodeRefusedStream {
		t.Errorf("one too many: %v", got)
	}
	r.must(r.WriteRSTStream(101, http2.ErrCodeCancel))
	r.post(303, query, true)
	if got := r.status(303); got != "200" {
		t.Errorf("the next after one has ended: %s", got)
	}
	// A padded body in parts, and trailers.
	r.must(r.WriteData(103, false, nil))
	r.must(r.WriteDataPadded(103, false, nil, make([]byte, 9)))
	r.block.Reset()
	r.must(r.encoder.WriteField(hpack.HeaderField{Name: "x-trailer", Value: "1"}))
	r.must(r.WriteHeaders(http2.HeadersFrameParam{StreamID: 103, BlockFragment: r.block.Bytes(), EndHeaders: true, EndStream: true}))
	if got := r.status(103); got != "200" {
		t.Errorf("with trailers: %s", got)
	}
}

// TestServer_HTTP2_Questions: what is a plain question is answered as all else is.
func TestServer_HTTP2_Questions(t *testing.T) {
	target, c, _ := start(t)
	query := packed(t, "www.example.")
	param := base64.RawURLEncoding.EncodeToString(query)
	for what, tt := range map[string]struct{ method, url, typ string }{
		"a type with a parameter":  {http.MethodPost, target, message + "; charset=x"},
		"a path with a query":      {http.MethodPost, target + "?x=1", message},
		"another parameter before": {http.MethodGet, target + "?x=1&dns=" + param, ""},
		"another parameter after":  {http.MethodGet, target + "?dns=" + param + "&x=1", ""},
		"an encoded parameter":     {http.MethodGet, target + "?dns=%" + fmt.Sprintf("%02X", param[0]) + param[1:], ""},
	} {
		resp, body := do(t, c, tt.method, tt.url, tt.typ, query)
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 || resp.Header.Get("Date") == "" {
			t.Errorf("%s: %s %s: %s", what, resp.Proto, resp.Status, body)
		} else if m := dnstest.Unpack(t, body); len(m.Answer) != 1 {
			t.Errorf("%s: %v", what, m)
		}
	}
	// Answers that have to be waited for hold up none that have not.
	r := dialRaw(t, target, c)
	r.post(1, packed(t, "slow.example."), true)
	r.post(3, query, true)
	seen := map[uint32]bool{}
	for len(seen) < 2 {
		seen[r.next("both answers", func(f http2.Frame) bool { _, ok := f.(*http2.MetaHeadersFrame); return ok }).Header().StreamID] = true
	}
}

// TestServer_HTTP2_Stops: a server that stops says so, answers what was asked, and ends
// the connection (RFC 9113 section 6.8).
func TestServer_HTTP2_Stops(t *testing.T) {
	target, c, _, stop := startStop(t, func(c *doh.Config) { c.StopTimeout = patience })
	r, idle := dialRaw(t, target, c), dialRaw(t, target, c)
	r.post(1, nil, false)
	r.must(r.WritePing(false, [8]byte{1})) // its answer says that the stream is known
	r.next("the ping's answer", func(f http2.Frame) bool { _, ok := f.(*http2.PingFrame); return ok })
	idle.next("settings", func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && s.IsAck() })
	stop()
	for _, conn := range []*raw{r, idle} {
		f := conn.next("the farewell", func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok }).(*http2.GoAwayFrame)
		if f.ErrCode != http2.ErrCodeNo {
			t.Errorf("%v", f)
		}
	}
	if _, err := idle.ReadFrame(); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection: %v, want its end", err)
	}
	query := packed(t, "www.example.")
	r.must(r.WriteData(1, true, query))
	if got := r.status(1); got != "200" {
		t.Errorf("status %s", got)
	}
	r.next("the answer", func(f http2.Frame) bool { d, ok := f.(*http2.DataFrame); return ok && d.StreamEnded() })
	if _, err := r.ReadFrame(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v, want the end", err)
	}
}
