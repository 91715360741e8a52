package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// EventFilter chooses events.
type EventFilter struct {
	Zone    string // empty: all
	Service string // empty: all
	// Since asks for the events after this id that the server still has. 0:
	// only what happens from now on.
	Since uint64
}

// EventHooks tell of the connection that events come over; nil ones are not
// called.
type EventHooks struct {
	// Connected is called each time the stream is open, before its events: what
	// is read from the server now misses nothing that they tell. Its error ends
	// Events.
	Connected func() error
	// Lost is called each time the stream breaks and will be opened again.
	Lost func(error)
}

// reconnectDelay is how long Events waits before it asks again: short, since a
// restarted server is back within a second, and long enough not to spin.
const reconnectDelay = time.Second

// eventLineMax bounds one line of the stream.
const eventLineMax = 1 << 20

// Events calls sink with each event until ctx ends or sink fails, and returns
// that error. When the connection breaks it connects again and resumes after
// the last event seen; an EventGap tells of what was lost. A first connection
// that fails is an error at once.
func (c *Client) Events(ctx context.Context, f EventFilter, hooks EventHooks, sink func(Event) error) error {
	last := f.Since
	connected := false
	open := hooks.Connected
	hooks.Connected = func() error {
		connected = true
		if open == nil {
			return nil
		}
		return open()
	}
	for {
		err := c.stream(ctx, f, &last, hooks.Connected, sink)
		var stop *sinkError
		switch {
		case errors.As(err, &stop):
			return stop.err
		case ctx.Err() != nil:
			return ctx.Err()
		case !connected, isRefusal(err):
			return err
		case hooks.Lost != nil:
			hooks.Lost(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(reconnectDelay):
		}
	}
}

// isRefusal reports whether the server answered that it will not: asking again
// does not help then. A 5xx is a server that starts or stops.
func isRefusal(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status < http.StatusInternalServerError
}

// sinkError tells the sink's error from the connection's.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return e.err.Error() }

// stream reads one connection's events until it breaks.
func (c *Client) stream(ctx context.Context, f EventFilter, last *uint64, connected func() error, sink func(Event) error) error {
	h := http.Header{"Accept": {"text/event-stream"}}
	q := query(ParamZone, f.Zone, ParamService, f.Service)
	if *last > 0 {
		h.Set("Last-Event-ID", strconv.FormatUint(*last, 10))
	}
	resp, err := c.send(ctx, http.MethodGet, PathEvents, q, nil, h)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !isOf(resp, "text/event-stream") {
		return c.notAPI(resp)
	}
	if err := connected(); err != nil {
		return &sinkError{err}
	}
	var data strings.Builder
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4096), eventLineMax)
	for lines.Scan() {
		line := lines.Text()
		if line != "" {
			// Only data matters: the id stands in it too, comments keep alive.
			if text, ok := strings.CutPrefix(line, "data:"); ok {
				data.WriteString(strings.TrimPrefix(text, " "))
			}
			continue
		}
		if data.Len() == 0 {
			continue
		}
		var e Event
		if err := json.Unmarshal([]byte(data.String()), &e); err != nil {
			return fmt.Errorf("reading an event: %w", err)
		}
		data.Reset()
		*last = max(*last, e.ID)
		if err := sink(e); err != nil {
			return &sinkError{err}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading events: %w", err)
	}
	return io.ErrUnexpectedEOF
}
