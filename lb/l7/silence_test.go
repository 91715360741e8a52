package l7_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestProxy_SilentInstance: an instance that accepts and does not answer, as one
// that was stopped, is told to its checks long before the request times out.
func TestProxy_SilentInstance(t *testing.T) {
	for name, send := range map[string]func(r *rig) (*http.Client, *http.Request){
		"over HTTP/1.1": func(r *rig) (*http.Client, *http.Request) {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url("/"), http.NoBody)
			return client(t), req
		},
		"with a body that was sent": func(r *rig) (*http.Client, *http.Request) {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, r.url("/"), io.LimitReader(endless{}, 1<<20))
			return client(t), req
		},
		"with a body that it does not take": func(r *rig) (*http.Client, *http.Request) {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, r.url("/"), io.LimitReader(endless{}, 64<<20))
			return client(t), req
		},
		"over HTTP/2": func(r *rig) (*http.Client, *http.Request) {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url("/"), http.NoBody)
			req.Header.Set("Content-Type", "application/grpc")
			return h2cClient(t), req
		},
		"over HTTP/2, with a stream that goes on": func(r *rig) (*http.Client, *http.Request) {
			body, pipe := io.Pipe()
			t.Cleanup(func() { pipe.Close() })
			go func() { _, _ = pipe.Write([]byte("a message")) }()
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url("/"), body)
			req.Header.Set("Content-Type", "application/grpc")
			return h2cClient(t), req
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, nil)
			hung := make(chan struct{})
			r.register("web/a", raw(t, func(net.Conn, int) { <-hung }))
			end := sync.OnceFunc(func() { close(hung) })
			t.Cleanup(end)
			c, req := send(r)
			done := make(chan struct{})
			go func() {
				defer close(done)
				if resp, err := c.Do(req); err == nil {
					resp.Body.Close()
				}
			}()
			await(t, "the silence to be told", func() bool { return r.dispatch.Stats().Silences > 0 })
			select {
			case <-done:
				t.Error("the request had ended before")
			default:
			}
			if n := r.dispatch.Stats().Ejections; n != 0 {
				t.Errorf("%d ejections: silence is none", n)
			}
			end() // the instance dies, and the client is told, though its own stream is open
			select {
			case <-done:
			case <-time.After(20 * time.Second): // a request may take 30 s
				t.Error("the client is not told")
			}
			<-done
		})
	}
}

// endless is a stream of zeros.
type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestProxy_SilentClient: it is not the instance that is silent while its client
// has not said all.
func TestProxy_SilentClient(t *testing.T) {
	for name, c := range map[string]func(t testing.TB) *http.Client{"over HTTP/1.1": client, "over HTTP/2": h2cClient} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, nil)
			r.register("web/a", server(t, named("a")))
			if name == "over HTTP/2" {
				r.routes(`all {"service":"web","protocol":"h2c"}`)
			}
			body, pipe := io.Pipe()
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, r.url("/"), body)
			go func() {
				for range 7 {
					_, _ = pipe.Write([]byte("some"))
					timer := time.NewTimer(400 * time.Millisecond) // the client's slowness is what is tested
					<-timer.C
				}
				pipe.Close()
			}()
			resp, err := c(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if line, _ := bufio.NewReader(resp.Body).ReadString('\n'); line != "a PUT /" {
				t.Errorf("answered with %q", line)
			}
			if n := r.dispatch.Stats().Silences; n != 0 {
				t.Errorf("told %d times that the instance is silent, which waited for the body", n)
			}
		})
	}
}
