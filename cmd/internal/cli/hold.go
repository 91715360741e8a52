package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/pflag"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/health/probe"
	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/etcd"
)

// holdOptions are the times of a held registration.
type holdOptions struct {
	lease time.Duration // the registration goes this long after this process
	drain drainTime     // from leaving the answers to SIGTERM for the command
	kill  time.Duration // from SIGTERM to SIGKILL
}

func (o *holdOptions) flags(fs *pflag.FlagSet) {
	fs.DurationVar(&o.lease, "lease", 10*time.Second, "how long the registration outlives a dead machine")
	o.drain = drainAuto
	fs.Var(&o.drain, "drain", "with a COMMAND: how `long` it still works for clients with old answers; auto: as long as caches may hold it")
	fs.DurationVar(&o.kill, "kill-after", 30*time.Second, "with a COMMAND: how long it may take to end before SIGKILL")
}

// releaseTimeout bounds the deregistration: etcd may be away, and then the
// lease runs out by itself.
const releaseTimeout = 3 * time.Second

// hold registers the instance and holds it until ctx or the command ends.
func (s *session) hold(ctx context.Context, f *registerFlags, in registry.Instance, value []byte, command []string) error {
	client, source, err := f.etcd.open(ctx, s, f.zone)
	if err != nil {
		return err
	}
	defer client.Close()
	var child *child
	life := context.Background() // of the command; without one it never ends
	if len(command) > 0 {
		var end context.CancelFunc
		life, end = context.WithCancel(life)
		defer end()
		if child, err = s.start(command, end); err != nil {
			return err
		}
	}
	lease, err := s.holdWhenWell(ctx, life, source, in, value, f.hold.lease)
	if lease == nil { // it never was in an answer
		f.hold.drain = 0
	} else {
		fmt.Fprintf(s.stderr, "muster: %s/%s is registered at %s\n", in.Service, in.ID, addresses(in.Addresses, in.Port))
		if s.keep(ctx, life, lease); child != nil && child.hasEnded() {
			fmt.Fprintf(s.stderr, "muster: the command has ended: %s\n", child.status())
		}
	}
	var drained registry.Lease
	if lease != nil && life.Err() == nil && child != nil && f.hold.drain != 0 {
		drained = s.drainHeld(ctx, source, in, f.hold.lease)
	}
	wait := time.Duration(f.hold.drain)
	if f.hold.drain == drainAuto {
		wait = s.drainTime(ctx, f.zone, in, life.Err() == nil && child != nil)
	}
	if lease != nil && drained == nil {
		s.release(ctx, in, f.hold.lease, lease)
	}
	var code error
	if child != nil {
		code = child.stop(wait, f.hold.kill)
	}
	if drained != nil { // the instance first: it must not come back
		s.release(ctx, in, f.hold.lease, lease, drained)
	}
	if err = ignoreCanceled(err); err == nil {
		err = code
	}
	return err
}

// drainTime is how long caches may hold the instance, as the server at --addr
// says, and what api.SafeAfter adds; nothing is asked for a command that has ended.
func (s *session) drainTime(ctx context.Context, zone string, in registry.Instance, runs bool) time.Duration {
	if !runs {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdTimeout)
	defer cancel()
	c, err := s.api()
	if err == nil {
		var list api.InstanceList
		if list, err = c.Instances(ctx, zone, in.Service); err == nil {
			for i := range list.Instances {
				if list.Instances[i].ID == in.ID {
					return s.tellDrain(time.Duration(api.SafeAfter(list.Instances[i].Cached)))
				}
			}
			err = errors.New("it does not know the instance")
		}
	}
	fmt.Fprintf(s.stderr, "muster: how long caches may hold it is not known: %v; %s is waited for\n", err, drainUnknown)
	return drainUnknown
}

func (s *session) tellDrain(d time.Duration) time.Duration {
	fmt.Fprintf(s.stderr, "muster: its command gets SIGTERM in %s, when caches have let go of it\n", d)
	return d
}

// drainTime is a time, or drainAuto.
type drainTime time.Duration

const (
	// drainAuto: what the server says.
	drainAuto drainTime = -1
	// drainUnknown is for when no server says it: the TTL of a zone that is left
	// as it is, and a grace.
	drainUnknown = 6 * time.Second
)

// Set implements pflag.Value.
func (d *drainTime) Set(text string) error {
	if text == "auto" {
		*d = drainAuto
		return nil
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return errors.New("must be auto, or a time such as 5s")
	}
	*d = drainTime(v)
	return nil
}

// String implements pflag.Value.
func (d *drainTime) String() string {
	if *d == drainAuto {
		return "auto"
	}
	return time.Duration(*d).String()
}

// Type implements pflag.Value.
func (d *drainTime) Type() string { return "time" }

// drainHeld takes the instance out of the answers while its own name is still
// answered: clients that hold an older SRV record go on to ask for that. It
// returns nil, and does nothing, where an administrator has a word on the
// instance already, or etcd does not take it.
func (s *session) drainHeld(ctx context.Context, source *etcd.Source, in registry.Instance, ttl time.Duration) registry.Lease {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdTimeout)
	defer cancel()
	key := registry.Key{Source: 1, Kind: registry.KindAdmin, Service: in.Service, Name: in.ID}
	if _, err := source.Get(ctx, key); !errors.Is(err, registry.ErrNotFound) {
		return nil
	}
	value, err := registry.EncodeAdmin(registry.Admin{
		Service: in.Service, Instance: in.ID, State: registry.AdminDrain, Reason: "its process is told to end", By: "muster register", Since: time.Now(),
	})
	if err != nil {
		return nil
	}
	lease, err := source.Hold(ctx, key, value, ttl)
	if err != nil {
		return nil
	}
	fmt.Fprintf(s.stderr, "muster: %s/%s is drained\n", in.Service, in.ID)
	return lease
}

// release gives leases back, the instance's own first.
func (s *session) release(ctx context.Context, in registry.Instance, ttl time.Duration, leases ...registry.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var errs []error
	for _, lease := range leases {
		errs = append(errs, lease.Close(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintf(s.stderr, "muster: deregistering: %v; the lease runs out within %s\n", err, ttl)
		return
	}
	fmt.Fprintf(s.stderr, "muster: %s/%s is deregistered\n", in.Service, in.ID)
}

// ignoreCanceled takes away the error of being told to stop.
func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// holdTimeout bounds one try to register. The try goes on when ctx ends: cut
// short, it could leave a registration behind that nobody gives back.
const holdTimeout = 3 * time.Second

// holdRetry is how often registering is tried again.
const holdRetry = time.Second

// holdWhenWell waits for the checks to pass once and registers then. The lease
// is nil when ctx or the command ended before. With a command it tries again
// while etcd is away: the command serves its present clients meanwhile.
func (s *session) holdWhenWell(ctx, life context.Context, holder registry.Holder, in registry.Instance, value []byte, ttl time.Duration) (registry.Lease, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unlink := context.AfterFunc(life, cancel)
	defer unlink()
	if err := s.awaitChecks(ctx, in); err != nil {
		return nil, err
	}
	key := registry.Key{Source: 1, Kind: registry.KindInstance, Service: in.Service, Name: in.ID}
	for told := ""; ; {
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdTimeout)
		lease, err := holder.Hold(try, key, value, ttl)
		err = etcdHint(err)
		cancel()
		if err == nil || life.Done() == nil {
			return lease, err
		}
		if told != err.Error() {
			told = err.Error()
			fmt.Fprintf(s.stderr, "muster: %s; trying again\n", told)
		}
		if !sleep(ctx, holdRetry) {
			return nil, ctx.Err()
		}
	}
}

// keep waits for ctx or the command to end, and tells of lost leases.
func (s *session) keep(ctx, life context.Context, lease registry.Lease) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-life.Done():
			return
		case <-lease.Lost():
			fmt.Fprintln(s.stderr, "muster: the lease was lost and is made again")
		}
	}
}

// firstCheckInterval is how often an instance that starts is checked: its
// start is waited for.
const firstCheckInterval = 200 * time.Millisecond

// awaitChecks returns when every check of the instance has passed.
func (s *session) awaitChecks(ctx context.Context, in registry.Instance) error {
	// Its own instance is what is probed, wherever it listens.
	prober, err := probe.New(probe.Config{AllowTargets: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}})
	if err != nil {
		return err
	}
	for _, c := range in.Checks {
		t, err := targetOf(in, c)
		if err != nil {
			return err
		}
		told := false
		for r := prober.Probe(ctx, t); !r.OK; r = prober.Probe(ctx, t) {
			if ctx.Err() == nil && !told {
				fmt.Fprintf(s.stderr, "muster: waiting for the %s check to pass: %s\n", c.Type, r.Output)
				told = true
			}
			if !sleep(ctx, firstCheckInterval) {
				return ctx.Err()
			}
		}
	}
	return nil
}

// targetOf is what a check of an instance asks, at its first address as the
// server does.
func targetOf(in registry.Instance, c registry.Check) (health.Target, error) {
	kind, err := health.ParseType(c.Type)
	if err != nil {
		return health.Target{}, usagef("--check: %w", err)
	}
	port := in.Port
	if c.Port != "" {
		p, err := checkPort(in, c.Port)
		if err != nil {
			return health.Target{}, err
		}
		port = p
	}
	t := health.Target{
		Type: kind, Addr: netip.AddrPortFrom(in.Addresses[0], port), Path: c.Path, Host: c.Host, Method: c.Method, Status: c.Status,
		Service: c.Service, Name: c.Name, Record: c.Record, Insecure: c.Insecure, Keep: c.Keep, Command: health.Command(c.Command), Timeout: c.Timeout,
	}
	if err := probe.Validate(t); err != nil {
		return t, usagef("--check: %w", err)
	}
	return t, nil
}
