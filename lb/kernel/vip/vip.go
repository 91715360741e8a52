// Package vip holds a virtual address as long as a lease lasts, so that of several
// Musters one has it and another takes it over.
//
// The lease comes from an Elector, which knows how machines agree (etcd). While it
// lasts, the address is on the interface with what is left of the lease as its
// valid lifetime: the kernel removes it in time though this process may hang, be
// stopped or be cut off. The same deadline goes to the data planes (Config.Hold).
// Who takes the address over waits until the one before has surely lost it, and
// tells the link with gratuitous ARP or unsolicited neighbour advertisements.
// A process that is followed by another on the same machine hands its lease on
// (HandOver), and the address never goes.
package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Elector says who may hold an address. It is safe for concurrent use.
type Elector interface {
	// Campaign waits until this machine is the one that may hold the address, or
	// ctx is done. The lease is renewed by whoever made it until it is resigned.
	Campaign(ctx context.Context, address netip.Addr) (Lease, error)
}

// Lease is one term of holding an address.
type Lease interface {
	// NotBefore is when the holder before has lost the address at the latest.
	NotBefore() time.Time
	// Deadline is how long nobody else can be elected, unless it moves: the
	// lease's time from before its last renewal was asked for.
	Deadline() time.Time
	// Changed tells that Deadline has moved. It is closed when the lease is to be
	// given up, most often because it is lost.
	Changed() <-chan struct{}
	// Err is why, once Changed is closed; nil: for another that is preferred.
	Err() error
	// Resign ends the lease, so that another can be elected at once.
	Resign(ctx context.Context) error
	// Release leaves the lease, as it is, to the process that this one has
	// handed it to.
	Release()
}

// Config is what holding an address needs.
type Config struct {
	// Address, with the length of its prefix, and the interface to have it on.
	Address   netip.Prefix
	Interface string
	Elector   Elector
	// Hold, if not nil, is told of each deadline; of the zero time when the
	// address is given up. It is what the data planes' Hold methods are for.
	Hold func(ctx context.Context, address netip.Addr, until time.Time) error
	// Log takes a line for each change and each failure; nil: none.
	Log *slog.Logger
}

const (
	// kernelDelay is how late the kernel may be in removing an address whose
	// lifetime is over: it rounds up to whole seconds, and checks no more often
	// than once in one.
	kernelDelay = 2 * time.Second
	// giveUpBefore is how long before the deadline a lease that was not renewed
	// is given up.
	giveUpBefore = time.Second
	// LeaseMin is the shortest lease that an address can be held by: of a shorter
	// one nothing is left after the kernel's delay.
	LeaseMin = kernelDelay + 2*time.Second
	// retryInterval is how long to wait after a failure, and retryMax after
	// many in a row, between which nothing was held: who cannot must not take
	// the address from those that can all the time.
	retryInterval = time.Second
	retryMax      = time.Minute
	// resignTimeout bounds giving up a lease when Run ends.
	resignTimeout = 2 * time.Second
)

// VIP is one virtual address on this machine.
type VIP struct {
	config Config
	log    *slog.Logger
	handed atomic.Bool

	mu     sync.Mutex
	status Status
}

// Status is whether this machine holds the address.
type Status struct {
	Holding  bool
	Deadline time.Time // if it does: how long, unless the lease is renewed
	Terms    uint64    // how often it has come to hold it
	Failures uint64    // campaigns, changes of the interface or of planes that failed
	Err      error     // why it could not hold the address when it last might have; nil once it did
}

// New returns a VIP that does nothing until Run.
func New(c Config) (*VIP, error) {
	switch {
	case !c.Address.IsValid() || c.Address.Addr().Is4In6():
		return nil, fmt.Errorf("vip: Address %v is no address with a prefix length", c.Address)
	case c.Interface == "":
		return nil, errors.New("vip: Interface is empty")
	case c.Elector == nil:
		return nil, errors.New("vip: Elector is nil")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &VIP{config: c, log: c.Log.With("vip", c.Address.Addr().String(), "interface", c.Interface)}, nil
}

// Status returns how things are.
func (v *VIP) Status() Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.status
}

// Run campaigns for the address and holds it, again and again, until ctx is done.
// Then it gives the address up, resigns and returns nil. It must run in the
// network namespace of the interface.
func (v *VIP) Run(ctx context.Context) error {
	for retry := retryInterval; ctx.Err() == nil; {
		lease, err := v.config.Elector.Campaign(ctx, v.config.Address.Addr())
		if err == nil {
			var held bool
			if held, err = v.term(ctx, lease); held {
				retry = retryInterval
			} else if ctx.Err() == nil {
				v.unable(err)
			}
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		v.failed(err)
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, retryMax)
	}
	return nil
}

// HandOver says that another process on this machine goes on with the lease: what
// is held when Run ends stays as it is.
func (v *VIP) HandOver() { v.handed.Store(true) }

// unable notes why the address was not held; nil: it was, or there is no reason.
func (v *VIP) unable(err error) {
	v.mu.Lock()
	v.status.Err = err
	v.mu.Unlock()
}

// failed counts and logs what went wrong.
func (v *VIP) failed(err error) {
	v.mu.Lock()
	v.status.Failures++
	v.mu.Unlock()
	v.log.Error("virtual address failed", "error", err)
}

// term holds the address for one lease, and reports whether it did.
func (v *VIP) term(ctx context.Context, lease Lease) (held bool, err error) {
	defer func() {
		if v.leaves(ctx) {
			lease.Release()
			return
		}
		// Another can be elected from here on, not before.
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignTimeout)
		defer cancel()
		if err := lease.Resign(rctx); err != nil {
			v.log.Warn("the lease could not be resigned, others wait for its end", "error", err)
		}
	}()
	if !wait(ctx, lease, time.Until(lease.NotBefore())) {
		return false, nil
	}
	if time.Until(lease.Deadline()) < LeaseMin-giveUpBefore {
		return false, fmt.Errorf("a lease until %v is too short, at least %v are needed", lease.Deadline(), LeaseMin)
	}
	err = v.take(ctx, lease.Deadline())
	if err == nil {
		held = true
		v.unable(nil)
		v.log.Info("address taken", "until", lease.Deadline())
		err = v.keep(ctx, lease)
	}
	if v.leaves(ctx) {
		v.log.Info("address left to the process that follows")
		return held, err
	}
	return held, errors.Join(err, v.giveUp(ctx))
}

// leaves reports whether what is held is to stay: this process ends and another
// goes on.
func (v *VIP) leaves(ctx context.Context) bool { return ctx.Err() != nil && v.handed.Load() }

// wait lets time pass; false if the lease is lost or ctx is done before.
func wait(ctx context.Context, lease Lease, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		case _, ok := <-lease.Changed():
			if !ok {
				return false
			}
		}
	}
}

// take puts the address on the interface and tells the planes.
func (v *VIP) take(ctx context.Context, deadline time.Time) error {
	v.mu.Lock()
	v.status.Holding, v.status.Deadline = true, deadline
	v.status.Terms++
	v.mu.Unlock()
	if err := v.until(ctx, deadline); err != nil {
		return err
	}
	return v.announce()
}

// until moves the deadline.
func (v *VIP) until(ctx context.Context, deadline time.Time) error {
	v.mu.Lock()
	v.status.Deadline = deadline
	v.mu.Unlock()
	err := v.setAddress(deadline)
	if v.config.Hold != nil {
		err = errors.Join(err, v.config.Hold(ctx, v.config.Address.Addr(), deadline))
	}
	return err
}

// keep follows the lease until it is lost, runs out or ctx is done.
func (v *VIP) keep(ctx context.Context, lease Lease) error {
	announcements := time.NewTimer(announceInterval)
	defer announcements.Stop()
	announced := 1 // by take
	end := time.NewTimer(time.Until(lease.Deadline()) - giveUpBefore)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-end.C:
			return errors.New("the lease was not renewed in time")
		case <-announcements.C:
			if announced++; announced < announceTimes {
				announcements.Reset(announceInterval)
			}
			if err := v.announce(); err != nil {
				v.failed(err)
			}
		case _, ok := <-lease.Changed():
			if !ok {
				return lease.Err()
			}
			end.Reset(time.Until(lease.Deadline()) - giveUpBefore)
			if err := v.until(ctx, lease.Deadline()); err != nil {
				return err
			}
		}
	}
}

// giveUp removes the address and tells the planes, also when ctx is done.
func (v *VIP) giveUp(ctx context.Context) error {
	err := v.removeAddress()
	if v.config.Hold != nil {
		err = errors.Join(err, v.config.Hold(context.WithoutCancel(ctx), v.config.Address.Addr(), time.Time{}))
	}
	v.mu.Lock()
	v.status.Holding, v.status.Deadline = false, time.Time{}
	v.mu.Unlock()
	v.log.Info("address given up")
	return err
}
