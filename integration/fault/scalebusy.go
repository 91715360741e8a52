package fault

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// What a busy server is measured with.
const (
	busyTime    = 5 * time.Second // of each of the three loads
	busyRounds  = 5               // of all three, one after the other: what the machine does meanwhile weighs more than they
	busyRate    = 2000            // questions a second
	busyChanges = 1000            // a second
	busyWriters = 20              // who make them: one after the other a disk does not take them
	busyPuts    = 500             // that are each waited for
)

// ScaleBusy is how long answers take, and a change takes to be answered.
type ScaleBusy struct {
	Rounds []BusyRound
	Put    Times // from a put's return to the first right answer, one put at a time
}

// BusyRound is the times of answers while nothing changes, while etcd is changed
// where the server has no keys, and while the server applies as many changes.
type BusyRound struct {
	Quiet, Elsewhere, Applied Times
	Changes                   float64 // a second, that were applied
}

// busy measures it.
func (sc Scale) busy(ctx context.Context, e *Etcd, s *Server) (b ScaleBusy, err error) {
	for range busyRounds {
		var r BusyRound
		if r.Quiet, _, err = sc.asked(ctx, e, s, ""); err != nil {
			return b, err
		}
		if r.Elsewhere, _, err = sc.asked(ctx, e, s, "/elsewhere/"); err != nil {
			return b, err
		}
		if r.Applied, r.Changes, err = sc.asked(ctx, e, s, Keys); err != nil {
			return b, err
		}
		b.Rounds = append(b.Rounds, r)
	}
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return b, err
	}
	defer c.Close()
	for n := range busyPuts {
		service, address := ServiceName(n*7919%sc.Services), fmt.Sprintf("10.255.%d.%d", n>>8, n&255)
		if _, err := e.Put(ctx, Instance(service, "i0"), fmt.Sprintf(`{"address":%q,"port":8080}`, address)); err != nil {
			return b, err
		}
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, startTimeout)
		_, err := c.Await(limited, "i0."+service+"."+Zone, dns.TypeA, Has(address))
		cancel()
		if err != nil {
			return b, err
		}
		b.Put = append(b.Put, time.Since(began))
	}
	return b, nil
}

// asked is the times of the answers for services all over the state while keys
// are changed, and how many were a second. No keys: none is.
func (sc Scale) asked(ctx context.Context, e *Etcd, s *Server, keys string) (Times, float64, error) {
	load := Load{Addr: s.DNS, Rate: busyRate, Judge: Answered, Window: busyTime}
	for i := 0; i < sc.Services; i += sc.stride() {
		load.Names = append(load.Names, ServiceName(i)+"."+Zone)
	}
	changing, stop := context.WithCancel(ctx)
	defer stop()
	var writers sync.WaitGroup
	var changes atomic.Int64
	for w := range busyWriters {
		if keys == "" {
			break
		}
		writers.Go(func() {
			tick := time.NewTicker(busyWriters * time.Second / busyChanges)
			defer tick.Stop()
			for n := w; ; n += busyWriters {
				select {
				case <-changing.Done():
					return
				case <-tick.C:
				}
				if sc.put(changing, e, keys, n) == nil { // what fails is missing in the rate
					changes.Add(1)
				}
			}
		})
	}
	tally, err := load.Run(ctx)
	rate := float64(changes.Load()) / busyTime.Seconds()
	stop()
	writers.Wait()
	if err == nil {
		err = tally.Bad()
	}
	return tally.Took, rate, err
}
