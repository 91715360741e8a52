package fault

import (
	"context"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// Put measures how long an instance of a service without checks takes from the
// return of its put in etcd to the first right answer. The first half of the
// runs are services that are new, the rest instances that move.
func Put(ctx context.Context, l *Lab, runs int) (Times, error) {
	e, s, err := l.follow(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var times Times
	for i := range runs {
		service := ServiceName(i % max(runs/2, 1))
		if _, err := e.Put(ctx, Instance(service, "one"), fmt.Sprintf(`{"address":%q,"port":8080}`, Address(i))); err != nil {
			return nil, err
		}
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, startTimeout)
		_, err := c.Await(limited, service+"."+Zone, dns.TypeA, Has(Address(i)))
		cancel()
		if err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}
