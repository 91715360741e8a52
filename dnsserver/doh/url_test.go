package doh_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/musterdns/muster/dnsserver/doh"
)

// taken is more than the server reads of a URL and the kernel's buffers hold.
const taken = 64 << 20

// TestServer_BoundsURLs: in CVE-2026-32936 the parameter dns could have any length, and
// was decoded before anybody looked at that.
func TestServer_BoundsURLs(t *testing.T) {
	target, c, _ := start(t)
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("HTTP/1.1: a URL without an end is not read", func(t *testing.T) {
		config := c.Transport.(*http.Transport).TLSClientConfig.Clone()
		config.NextProtos = []string{"http/1.1"}
		conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "GET %s?dns=", doh.Path); err != nil {
			t.Fatal(err)
		}
		if n := flood(conn); n >= taken {
			t.Errorf("the server takes a URL of %d octets", n)
		}
	})
	t.Run("HTTP/2: nor is one in frames", func(t *testing.T) {
		r := dialRaw(t, target, c)
		r.block.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "dns.test"}} {
			r.must(r.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
		}
		// A literal :path (index 4, RFC 7541 section 6.2.2) of 256 MiB begins.
		block := append(r.block.Bytes(), 0x04, 0x7f, 0x81, 0xff, 0xff, 0x7f)
		r.must(r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block}))
		if n := flood(frames{r}); n >= taken {
			t.Errorf("the server takes a path of %d octets", n)
		}
	})
	t.Run("one that is longer than a message can be is refused", func(t *testing.T) {
		for _, octets := range []int{8 << 10, 70 << 10} {
			param := base64.RawURLEncoding.EncodeToString(make([]byte, octets))
			plain := &http.Transport{TLSClientConfig: c.Transport.(*http.Transport).TLSClientConfig.Clone()}
			plain.TLSClientConfig.NextProtos = []string{"http/1.1"}
			resp, body := do(t, &http.Client{Transport: plain}, http.MethodGet, target+"?dns="+param, "", nil)
			plain.CloseIdleConnections()
			if octets > 64<<10 && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge || octets < 64<<10 && resp.StatusCode != http.StatusOK {
				t.Errorf("%d octets: %s %s", octets, resp.Status, body)
			}
		}
	})
	if resp, _ := do(t, c, http.MethodPost, target, message, packed(t, "www.example.")); resp.StatusCode != http.StatusOK {
		t.Errorf("the next question: %s", resp.Status)
	}
}

// frames writes the rest of a header.
type frames struct{ r *raw }

func (f frames) Write(b []byte) (int, error) { return len(b), f.r.WriteContinuation(1, false, b) }

// flood writes until it cannot any more, and returns how many octets that were.
func flood(w io.Writer) int {
	chunk := bytes.Repeat([]byte("A"), 16<<10)
	for n := 0; ; n += len(chunk) {
		if _, err := w.Write(chunk); err != nil || n >= taken {
			return n
		}
	}
}
