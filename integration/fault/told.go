package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Told is what the server says of the failure of an instance.
type Told struct {
	Instance, Cause string
	At              time.Time
	Wrong           time.Duration // from the first sign to the last wrong answer
	Bound           time.Duration // from the last good check; 0: not known
}

// LastFailure asks the server for the last failure of a service; nil: it tells
// of none.
func (s *Server) LastFailure(ctx context.Context, service string) (*Told, error) {
	text, err := s.get(ctx, "/v1/services/"+service)
	if err != nil {
		return nil, err
	}
	var said struct {
		LastFailure *struct {
			Instance, Cause, Wrong, Bound string
			At                            time.Time
		} `json:"last_failure"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return nil, err
	}
	f := said.LastFailure
	if f == nil {
		return nil, nil
	}
	told := &Told{Instance: f.Instance, Cause: f.Cause, At: f.At}
	if told.Wrong, err = time.ParseDuration(f.Wrong); err != nil {
		return nil, err
	}
	if f.Bound != "" {
		told.Bound, err = time.ParseDuration(f.Bound)
	}
	return told, err
}

// told is what the server says of a death after killed.
func (d *Death) told(ctx context.Context, s *Server, service string, killed time.Time) (Told, error) {
	f, err := s.LastFailure(ctx, service)
	switch {
	case err != nil:
		return Told{}, err
	case f == nil || f.At.Before(killed):
		return Told{}, fmt.Errorf("the server tells of no failure of %s since it was killed: %+v", service, f)
	case f.Instance != "goes" || f.Cause != d.Cause:
		return Told{}, fmt.Errorf("the server tells of a failure of %s by %s, want goes by %s", f.Instance, f.Cause, d.Cause)
	}
	return *f, nil
}
