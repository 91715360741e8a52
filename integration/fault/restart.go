package fault

import (
	"context"
	"fmt"
	"os"

	"github.com/miekg/dns"
)

// Restart measures how long Muster takes from its start to its first right
// answer when etcd is away and all that it has is its snapshot. Each run but
// the first follows a crash.
func Restart(ctx context.Context, l *Lab, sc Scale, runs int) (Times, error) {
	e, err := l.Etcd(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	if err := e.Load(ctx, Instances(sc.Services, sc.Each)); err != nil {
		return nil, err
	}
	if err := os.Mkdir(l.Path("state"), 0o700); err != nil {
		return nil, err
	}
	s, err := l.Run(ctx, Settings{Etcd: e.URL, Snapshot: l.Path("state/snapshot")})
	if err != nil {
		return nil, err
	}
	s.Stop() // writes the snapshot
	if err := e.Kill(); err != nil {
		return nil, err
	}
	var times Times
	for i := range runs {
		if s, err = l.Serve(); err != nil {
			return nil, err
		}
		if err := sc.first(ctx, s); err != nil {
			return nil, fmt.Errorf("run %d: %w\n%s", i, err, s.LogTail())
		}
		times = append(times, s.Age())
		// It has everything, not only what was asked first.
		if err := sc.sweep(ctx, s, new(ScaleResult)); err != nil {
			return nil, fmt.Errorf("run %d: %w\n%s", i, err, s.LogTail())
		}
		if err := Kill(s.Process); err != nil {
			return nil, err
		}
	}
	return times, nil
}

// first waits for the first right answer.
func (sc Scale) first(ctx context.Context, s *Server) error {
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err = c.Await(ctx, "i0."+ServiceName(0)+"."+Zone, dns.TypeA, Has(Address(0)))
	return err
}
