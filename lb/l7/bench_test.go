package l7_test

import (
	"io"
	"net"
	"net/http"
	"testing"
)

// BenchmarkProxy_Small is a small exchange over kept connections, one after the
// other: the client, the proxy and the instance together. The proxy alone is
// measured, beside others, by integration/bench l7.
func BenchmarkProxy_Small(b *testing.B) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\nok"
	r := start(b, nil)
	r.register("web/a", raw(b, func(c net.Conn, _ int) {
		buf := make([]byte, 4096)
		for {
			if _, err := c.Read(buf); err != nil { // a head is read whole on loopback
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}))
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(c, "GET /api/users/17?x=1 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n"); err != nil {
			b.Fatal(err)
		}
		if n, err := c.Read(buf); err != nil || string(buf[9:12]) != "200" {
			b.Fatalf("%q, %v", buf[:n], err)
		}
	}
}

// BenchmarkProxy_HTTP2 is one over a connection of HTTP/2.
func BenchmarkProxy_HTTP2(b *testing.B) {
	r := start(b, nil)
	r.register("web/a", server(b, named("a")))
	c := h2cClient(b)
	b.ReportAllocs()
	for b.Loop() {
		if resp, _ := do(b, c, "GET", r.url("/"), ""); resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status)
		}
	}
}
