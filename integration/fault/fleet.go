package fault

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// fleetHosts is how many addresses the instances of a fleet lie at; more
// instances have further ports.
const fleetHosts = 200

// Fleet is many instances in this process, at addresses of a lab's network. It
// tells the servers that check it apart by the Host that each is configured to
// send, counts the checks of each, and can be cut off from one of them.
type Fleet struct {
	lab       *Lab
	listeners []net.Listener
	servers   []*http.Server
	serving   sync.WaitGroup
	checks    sync.Map // of *atomic.Int64, by Host
	cut       atomic.Pointer[string]
}

// StartFleet makes n instances. The caller must Close it.
func (l *Lab) StartFleet(ctx context.Context, n int) (*Fleet, error) {
	f := &Fleet{lab: l}
	handler := http.HandlerFunc(f.answer)
	for i := range n {
		lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.addr(i))
		if err != nil {
			f.Close()
			return nil, err
		}
		srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		f.listeners, f.servers = append(f.listeners, lis), append(f.servers, srv)
		f.serving.Go(func() { _ = srv.Serve(lis) }) // returns when it is closed
	}
	return f, nil
}

// Close ends all instances.
func (f *Fleet) Close() {
	for _, s := range f.servers {
		s.Close()
	}
	f.serving.Wait()
}

// Kill ends the i-th instance: its connections are refused from now on.
func (f *Fleet) Kill(i int) { f.servers[i].Close() }

// Cut makes the fleet unreachable for the server that sends this Host: nothing
// is answered within the time that a check has. Empty: for none.
func (f *Fleet) Cut(host string) { f.cut.Store(&host) }

func (f *Fleet) answer(w http.ResponseWriter, r *http.Request) {
	n, _ := f.checks.LoadOrStore(r.Host, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	if cut := f.cut.Load(); cut != nil && *cut != "" && *cut == r.Host {
		<-r.Context().Done() // until the check gives up
		return
	}
	fmt.Fprintln(w, "well")
}

// Checks is the number of checks of the server that sends this Host.
func (f *Fleet) Checks(host string) int64 {
	n, ok := f.checks.Load(host)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

func (f *Fleet) addr(i int) string {
	return f.lab.at(byte(hostBackends+i%fleetHosts), uint16(portBackend+i/fleetHosts))
}

// ID is the name of the i-th instance.
func (f *Fleet) ID(i int) string { return fmt.Sprintf("i%04d", i) }

// Records yields the keys of the instances from up to to of a service.
func (f *Fleet) Records(service string, from, to int) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		for i := from; i < to; i++ {
			host, port, _ := strings.Cut(f.addr(i), ":")
			if !yield(Instance(service, f.ID(i)), fmt.Sprintf(`{"address":%q,"port":%s}`, host, port)) {
				return
			}
		}
	}
}
