package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// The checks that Crash measures.
const (
	// CheckEverySecond is a check each second with a verdict after two failures.
	CheckEverySecond = `{"type":"http","path":"/","interval":"1s","fall":2}`
	// CheckByDefault leaves everything to the defaults.
	CheckByDefault = `{"type":"http","path":"/"}`
)

// Crash measures how long a killed instance stays in the answers: from kill -9
// of the process that serves to the last wrong answer. Each of the lanes is a
// service of two instances, one of which is killed again and again at a moment
// that the checks know nothing of; the lanes go on at the same time.
func Crash(ctx context.Context, l *Lab, check string, lanes, runs int) (Times, error) {
	e, err := l.Etcd(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	s, err := l.Run(ctx, Settings{Etcd: e.URL})
	if err != nil {
		return nil, err
	}
	var running sync.WaitGroup
	times, errs := make([]Times, lanes), make([]error, lanes)
	for i := range lanes {
		running.Go(func() { times[i], errs[i] = l.crashes(ctx, e, s, i, check, runs) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.LogTail())
	}
	var all Times
	for _, t := range times {
		all = append(all, t...)
	}
	return all, nil
}

// crashes are the runs of one lane.
func (l *Lab) crashes(ctx context.Context, e *Etcd, s *Server, lane int, check string, runs int) (Times, error) {
	service, stays, goes := fmt.Sprintf("lane%d", lane), byte(hostBackends+2*lane), byte(hostBackends+2*lane+1)
	if _, err := e.Put(ctx, Keys+"services/"+service, `{"checks":[`+check+`]}`); err != nil {
		return nil, err
	}
	if _, err := l.StartBackend(ctx, stays); err != nil {
		return nil, err
	}
	for id, host := range map[string]byte{"stays": stays, "goes": goes} {
		if _, err := e.Put(ctx, Instance(service, id), l.at(host, portBackend)); err != nil {
			return nil, err
		}
	}
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var times Times
	for range runs {
		took, err := l.crash(ctx, c, service+"."+Zone, stays, goes)
		if err != nil {
			return nil, err
		}
		times = append(times, took)
	}
	return times, nil
}

// crash is one run.
func (l *Lab) crash(ctx context.Context, c *Client, name string, stays, goes byte) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*startTimeout)
	defer cancel()
	p, err := l.StartBackend(ctx, goes)
	if err != nil {
		return 0, err
	}
	if _, err := c.Await(ctx, name, dns.TypeA, Has(l.Addr(stays).String(), l.Addr(goes).String())); err != nil {
		return 0, err
	}
	select { // any moment of the interval between two checks
	case <-time.After(rand.N(2 * time.Second)):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	killed := time.Now()
	if err := Kill(p); err != nil {
		return 0, err
	}
	last := killed
	_, err = c.Await(ctx, name, dns.TypeA, func(m *dns.Msg) error {
		if err := Has(l.Addr(stays).String())(m); err != nil {
			last = time.Now()
			return err
		}
		return nil
	})
	if err != nil && strings.Contains(err.Error(), l.Addr(goes).String()) {
		return 0, fmt.Errorf("the killed instance stays: %w", err)
	}
	return last.Sub(killed), err
}
