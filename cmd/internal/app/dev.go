package app

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/musterdns/muster/cmd/internal/demo"
	"github.com/musterdns/muster/registry"
)

// sampleTTL is the lease of the sample instances.
const sampleTTL = 10 * time.Second

// registerSamples registers the sample services, where they are not there from
// an earlier run, and holds the sample instances until ctx ends.
func (s *server) registerSamples(ctx context.Context) error {
	if len(s.sources) == 0 {
		s.log.Warn("the samples are not registered: the configuration has no service zone")
		return nil
	}
	store := s.sources[0].etcd
	for _, svc := range demo.Services() {
		value, err := registry.EncodeService(svc)
		if err != nil {
			return err
		}
		op := registry.Op{Key: registry.Key{Kind: registry.KindService, Service: svc.Name}, Value: value, Create: true}
		if _, err := store.Apply(ctx, []registry.Op{op}); err != nil && !errors.Is(err, registry.ErrExists) {
			return ended(ctx, err)
		}
	}
	var hold errgroup.Group
	for _, in := range s.samples.Instances() {
		hold.Go(func() error {
			lease, err := store.Register(ctx, in, sampleTTL)
			if err != nil {
				return ended(ctx, err)
			}
			<-ctx.Done()
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			return lease.Close(end)
		})
	}
	return hold.Wait()
}

// ended drops an error that came of the end of ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
