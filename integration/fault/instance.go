package fault

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The paths by which an instance is more than one that answers.
const (
	countPath  = "/count"  // says how many connections and requests it had, and how many requests were under way at most
	behavePath = "/behave" // tells it how to behave: parameters status and delay; forgets the most
	streamPath = "/stream" // answers with size octets, evenly over the time of lasts
)

// streamSteps is how many pieces a stream comes in.
const streamSteps = 100

// instance is a process that serves HTTP, as it is told to. An upgraded
// connection sends back what it is sent.
type instance struct {
	addr            string
	conns, requests atomic.Int64
	status          atomic.Int64 // of its answers; 0: 200
	delay           atomic.Int64 // of its answers, ns

	mu             sync.Mutex // guards what is below
	underWay, most int64      // requests now, and at once at most
}

// Backend makes this process an instance, if it was started as one, and then
// returns true when it has ended. Programs that start instances call it first.
func Backend(args []string) bool {
	if len(args) != 3 || args[1] != backendVerb {
		return false
	}
	i := &instance{addr: args[2]}
	srv := &http.Server{
		Addr: i.addr, ReadHeaderTimeout: 5 * time.Minute, // held connections ask nothing
		Handler: i,
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				i.conns.Add(1)
			}
		},
	}
	fmt.Fprintln(os.Stderr, srv.ListenAndServe())
	return true
}

// ServeHTTP answers with whom it comes from, and what it was asked for.
func (i *instance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == countPath:
		i.mu.Lock()
		most := i.most
		i.mu.Unlock()
		fmt.Fprintln(w, i.conns.Load(), i.requests.Load(), most)
		return
	case r.URL.Path == behavePath:
		i.behave(w, r.URL.Query())
		return
	}
	i.requests.Add(1)
	i.take(1)
	defer i.take(-1)
	time.Sleep(time.Duration(i.delay.Load()))
	switch {
	case r.Header.Get("Upgrade") != "":
		echo(w, r.Header.Get("Upgrade"))
		return
	case r.URL.Path == streamPath:
		stream(w, r.URL.Query())
		return
	}
	if status := int(i.status.Load()); status != 0 {
		w.WriteHeader(status)
	}
	fmt.Fprintln(w, i.addr, r.URL.Path)
}

// take counts requests under way.
func (i *instance) take(n int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.underWay += n
	i.most = max(i.most, i.underWay)
}

// behave takes what the instance is told.
func (i *instance) behave(w http.ResponseWriter, told url.Values) {
	status, err := strconv.Atoi(told.Get("status"))
	if err == nil {
		var delay time.Duration
		if delay, err = time.ParseDuration(told.Get("delay")); err == nil {
			i.status.Store(int64(status))
			i.delay.Store(int64(delay))
			i.mu.Lock()
			i.most = i.underWay
			i.mu.Unlock()
			return
		}
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
}

// stream sends size octets over the time of lasts.
func stream(w http.ResponseWriter, told url.Values) {
	size, err := strconv.Atoi(told.Get("size"))
	lasts, e := time.ParseDuration(told.Get("lasts"))
	if err != nil || e != nil {
		http.Error(w, "a stream has a size and lasts", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(size))
	c := http.NewResponseController(w)
	for step := range streamSteps {
		if _, err := w.Write(make([]byte, size*(step+1)/streamSteps-size*step/streamSteps)); err != nil {
			return
		}
		_ = c.Flush() // the next write tells
		time.Sleep(lasts / streamSteps)
	}
}

// echo switches protocols and sends back what comes.
func echo(w http.ResponseWriter, protocol string) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	if rw.Flush() == nil {
		_, _ = io.Copy(c, rw) // its end is all that matters
	}
}

// Behaviour is how an instance answers.
type Behaviour struct {
	Status int           // 0: 200
	Delay  time.Duration // before it answers
}

// Behave tells the instance at a host of the lab how to behave from now on.
func (l *Lab) Behave(ctx context.Context, host byte, b Behaviour) error {
	_, err := l.tell(ctx, host, fmt.Sprintf("%s?status=%d&delay=%s", behavePath, b.Status, b.Delay))
	return err
}

// Busiest is how many requests were under way at once at most, at the instance
// at a host of the lab, since it was last told how to behave.
func (l *Lab) Busiest(ctx context.Context, host byte) (int, error) {
	text, err := l.tell(ctx, host, countPath)
	if err != nil {
		return 0, err
	}
	var conns, requests, most int
	_, err = fmt.Sscan(text, &conns, &requests, &most)
	return most, err
}

// tell asks an instance, and returns what it says.
func (l *Lab) tell(ctx context.Context, host byte, target string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.at(host, portBackend)+target, http.NoBody)
	if err != nil {
		return "", err
	}
	req.Close = true // no connection is to outlive the instance
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the instance at %s answers %s with %s: %s", req.URL.Host, target, resp.Status, text)
	}
	return string(text), err
}
