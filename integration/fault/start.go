package fault

import (
	"context"
	"fmt"

	"github.com/miekg/dns"
)

// Start measures how long muster dev takes from its start to the first answer
// with every sample instance of a service in it.
func Start(ctx context.Context, l *Lab, runs int) (Times, error) {
	var times Times
	for i := range runs {
		s, err := l.Dev()
		if err != nil {
			return nil, err
		}
		c, err := Dial(ctx, s.DNS)
		if err != nil {
			return nil, err
		}
		limited, cancel := context.WithTimeout(ctx, startTimeout)
		_, err = c.Await(limited, "web."+Zone, dns.TypeA, Has("127.0.1.1", "127.0.1.2", "127.0.1.3"))
		cancel()
		c.Close()
		if err != nil {
			return nil, fmt.Errorf("run %d: %w\n%s", i, err, s.LogTail())
		}
		times = append(times, s.Age())
		s.Stop()
	}
	return times, nil
}
