package fault

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/musterdns/muster/integration/program"
)

// backendVerb is the first argument that makes the running program an instance.
const backendVerb = "serve-as-an-instance"

// Backend makes this process an instance, if it was started as one, and then
// returns true when it has ended. Programs that start instances call it first.
func Backend(args []string) bool {
	if len(args) != 3 || args[1] != backendVerb {
		return false
	}
	var conns, requests atomic.Int64
	srv := &http.Server{
		Addr: args[2], ReadHeaderTimeout: 5 * time.Minute, // held connections ask nothing
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == countPath {
				fmt.Fprintln(w, conns.Load(), requests.Load())
				return
			}
			requests.Add(1)
			fmt.Fprintln(w, args[2], r.URL.Path) // whom it comes from, and what it was asked for
		}),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				conns.Add(1)
			}
		},
	}
	fmt.Fprintln(os.Stderr, srv.ListenAndServe())
	return true
}

// countPath is where an instance says how many connections and requests it had.
const countPath = "/count"

// BackendArgs are the arguments that make this program an instance at addr.
func BackendArgs(addr string) []string { return []string{backendVerb, addr} }

// portBackend is where instances listen.
const portBackend = 8080

// StartBackend starts an instance that serves HTTP at a host of the lab, and
// waits until it does.
func (l *Lab) StartBackend(ctx context.Context, host byte) (*program.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr := l.at(host, portBackend)
	p, err := l.Start("instance", append([]string{self}, BackendArgs(addr)...)...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p, p.Poll(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", http.NoBody)
		if err != nil {
			return err
		}
		req.Close = true // no connection is to outlive the instance
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	})
}
