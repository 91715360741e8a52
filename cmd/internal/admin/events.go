package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// streamsMax bounds the event streams open at once.
const streamsMax = 256

// keepAlive is how often a quiet stream gets a comment, so that proxies and
// clients between see that it lives, and this server that they do.
const keepAlive = 15 * time.Second

// events answers GET /v1/events with server-sent events, until the client or
// the server goes. A client resumes with Last-Event-ID.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	if e := s.sameOrigin(r); e != nil {
		s.fail(w, e)
		return
	}
	filter, since, err := s.eventFilter(r)
	if err != nil {
		s.fail(w, asError(err))
		return
	}
	if s.streams.Add(1) > streamsMax {
		s.streams.Add(-1)
		s.fail(w, &api.Error{
			Status: http.StatusServiceUnavailable, Message: fmt.Sprintf("%d event streams are open already", streamsMax), Mend: "try again later",
		})
		return
	}
	defer s.streams.Add(-1)
	s.stream(w, r, filter, since)
}

// Streams is how many event streams are open.
func (s *Server) Streams() int64 { return s.streams.Load() }

// eventFilter reads the parameters of a stream.
func (s *Server) eventFilter(r *http.Request) (keep func(*pool.Event) bool, since uint64, err error) {
	q := r.URL.Query()
	var source registry.SourceID
	service := q.Get(api.ParamService)
	if zone := q.Get(api.ParamZone); zone != "" || service != "" {
		z, err := s.zone(zone)
		if err != nil {
			return nil, 0, err
		}
		source = z.Source
		if service != "" {
			if service, err = foldService(z, service); err != nil {
				return nil, 0, err
			}
		}
	}
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = q.Get(api.ParamSince)
	}
	if last != "" {
		if since, err = strconv.ParseUint(last, 10, 64); err != nil {
			return nil, 0, badField(api.ParamSince, "give the id of the last event seen", "%s is no event id", quote(last))
		}
	}
	return func(e *pool.Event) bool {
		if e.Kind == pool.EventGap {
			return true
		}
		return (source == 0 || e.Source == source) && (service == "" || e.Service == service)
	}, since, nil
}

// stream writes events as they come. A goroutine of the pool's iterator feeds
// it, so that quiet times can be bridged.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, keep func(*pool.Event) bool, since uint64) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	if rc.Flush() != nil {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	feed := make(chan pool.Event)
	defer func() { // the feeding goroutine ends first
		cancel()
		for range feed { // what is left goes to nobody
		}
	}()
	go func() {
		defer close(feed)
		for e := range s.cfg.Pool.Events(ctx, since) {
			if !keep(&e) {
				continue
			}
			select {
			case feed <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case e, ok := <-feed:
			if !ok {
				return
			}
			err = s.writeEvent(w, &e)
		case <-tick.C:
			_, err = fmt.Fprint(w, ": keep-alive\n\n")
		}
		if err != nil || rc.Flush() != nil {
			return
		}
	}
}

// writeEvent writes one event in the text/event-stream format.
func (s *Server) writeEvent(w http.ResponseWriter, e *pool.Event) error {
	out := api.Event{
		ID: e.Seq, At: e.At, Kind: eventKinds[e.Kind], Zone: s.zoneName(e.Source), Service: e.Service,
		Instance: e.Instance, From: e.From, To: e.To, Reason: e.Reason, Failure: failureOf(e.Failure),
	}
	data, err := json.Marshal(out)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", out.ID, out.Kind, data)
	return err
}

// eventKinds are the API's words for the pool's events.
var eventKinds = map[pool.EventKind]api.EventKind{
	pool.EventRegistered: api.EventInstanceAdded, pool.EventDeregistered: api.EventInstanceRemoved,
	pool.EventChanged: api.EventInstanceChanged, pool.EventHealth: api.EventHealth, pool.EventAdmin: api.EventAdmin,
	pool.EventServing: api.EventServing, pool.EventService: api.EventService, pool.EventSource: api.EventRegistry,
	pool.EventFailure: api.EventFailure, pool.EventAlarm: api.EventAlarm, pool.EventProblem: api.EventProblem, pool.EventGap: api.EventGap,
}

// zoneName is the zone that a source feeds; empty for none.
func (s *Server) zoneName(id registry.SourceID) string {
	for i := range s.cfg.Zones {
		if s.cfg.Zones[i].Source == id {
			return s.cfg.Zones[i].Name
		}
	}
	return ""
}
