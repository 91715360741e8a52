package pool

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/musterdns/muster/registry"
)

// Whole returns every service that a source's zone answers, as of one moment,
// sorted by name, and the zone's serial number then. It costs the writer O(services).
func (p *Pool) Whole(ctx context.Context, source registry.SourceID) (services []*Service, serial uint32, err error) {
	err = p.ask(ctx, func() {
		src := p.w.sources[source]
		if src == nil {
			return
		}
		serial = src.view.Serial()
		for _, s := range src.services {
			if s.pub != nil && !s.pub.ancestor {
				services = append(services, s.pub)
			}
		}
	})
	if err != nil {
		return nil, 0, fmt.Errorf("listing what is published: %w", err)
	}
	slices.SortFunc(services, func(a, b *Service) int { return cmp.Compare(a.name, b.name) })
	return services, serial, nil
}
