// Package notify tells secondaries that a zone has changed (RFC 1996), by UDP, again
// until they answer or have been told five times.
//
// Twice a second it compares the serial number of each zone that has secondaries with
// what each of them was last told: a change costs nothing by itself, and those of half a
// second are told as one. A secondary that does not answer holds up no other.
package notify

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/tsig"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// Target names a secondary that is told when a zone has changed.
type Target struct {
	Zone string // exactly
	To   netip.AddrPort
	Key  *tsig.Key // to sign with; nil: none
	// From is the address to send from, where secondaries know the server by one of
	// several; not valid: what the system chooses.
	From netip.Addr
}

const (
	// lookInterval is how often serial numbers are looked at: what changes within it
	// is told as one change. A look costs O(zones with secondaries).
	lookInterval = 500 * time.Millisecond
	// firstTimeout is how long a secondary has to answer the first time, twice as long
	// each time after that (RFC 1996 section 3.6), tries times together.
	firstTimeout = time.Second
	tries        = 5
)

// Notifier tells secondaries of changes. Run runs it.
type Notifier struct {
	tree    func() *zones.Tree
	log     *slog.Logger
	mu      sync.Mutex // guards targets
	targets []*secondary
	running sync.WaitGroup

	sent, failed atomic.Uint64
}

// secondary is one server that is told of one zone.
type secondary struct {
	Target
	zone    wire.Name
	told    atomic.Int64 // serial number that it has answered for; -1: none
	telling atomic.Bool
	ill     atomic.Bool // the last round failed
}

// New returns a Notifier of the zones of tree. It logs to log a line when a
// secondary does not answer, and when it does again.
func New(tree func() *zones.Tree, log *slog.Logger) *Notifier {
	return &Notifier{tree: tree, log: log}
}

// Prepare checks a list of secondaries. They replace those of before when commit is
// called; those that stay are not told again.
func (n *Notifier) Prepare(list []Target) (commit func(), err error) {
	targets := make([]*secondary, 0, len(list))
	for i, t := range list {
		zone, err := wire.ParseName(t.Zone)
		if err != nil {
			return nil, fmt.Errorf("Target[%d].Zone: %w", i, err)
		}
		if !t.To.IsValid() || t.To.Port() == 0 {
			return nil, fmt.Errorf("Target[%d].To: %s is no address and port", i, t.To)
		}
		s := &secondary{Target: t, zone: zone}
		s.told.Store(-1)
		targets = append(targets, s)
	}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, s := range targets {
			if at := slices.IndexFunc(n.targets, func(o *secondary) bool { return o.zone.Equal(&s.zone) && o.To == s.To }); at >= 0 {
				s.told.Store(n.targets[at].told.Load())
			}
		}
		n.targets = targets
	}, nil
}

// Sent and Failed are how many messages were answered, and how many secondaries did
// not answer for all the times that they were told.
func (n *Notifier) Sent() uint64   { return n.sent.Load() }
func (n *Notifier) Failed() uint64 { return n.failed.Load() } //nolint:revive // Sent's comment is for both

// Run tells secondaries until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	defer n.running.Wait()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.look(ctx)
		}
	}
}

// look begins to tell those who do not know of the zones' present serial numbers.
func (n *Notifier) look(ctx context.Context) {
	n.mu.Lock()
	targets := n.targets
	n.mu.Unlock()
	tree := n.tree()
	for _, s := range targets {
		zone := tree.Zone(&s.zone)
		if zone == nil {
			continue
		}
		serial := zone.Serial()
		if serial == 0 || s.told.Load() == int64(serial) || !s.telling.CompareAndSwap(false, true) {
			continue
		}
		n.running.Go(func() {
			defer s.telling.Store(false)
			n.tell(ctx, s, serial)
		})
	}
}

// tell sends a NOTIFY until it is answered. A secondary that is not to be reached is
// told of the next change; it looks at the SOA by itself meanwhile.
func (n *Notifier) tell(ctx context.Context, s *secondary, serial uint32) {
	var err error
	for try := range tries {
		if err = s.send(ctx, serial, firstTimeout<<try); err == nil {
			n.sent.Add(1)
			break
		}
		if ctx.Err() != nil {
			return
		}
	}
	s.told.Store(int64(serial))
	if err != nil {
		n.failed.Add(1)
	}
	if was := s.ill.Swap(err != nil); was != (err != nil) {
		if err != nil {
			n.log.Warn("a secondary does not answer NOTIFY", "zone", s.Zone, "secondary", s.To, "error", err)
		} else {
			n.log.Info("a secondary answers NOTIFY again", "zone", s.Zone, "secondary", s.To)
		}
	}
}

// send sends one NOTIFY and waits for the answer for as long as timeout.
func (s *secondary) send(ctx context.Context, serial uint32, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m := new(dns.Msg)
	m.SetNotify(s.zone.String())
	m.Answer = []dns.RR{&dns.SOA{ // RFC 1996 section 3.7: a hint
		Hdr: dns.RR_Header{Name: s.zone.String(), Rrtype: dns.TypeSOA, Class: dns.ClassINET},
		Ns:  ".", Mbox: ".", Serial: serial,
	}}
	c := &dns.Client{Dialer: &net.Dialer{Timeout: timeout}, Timeout: timeout}
	if s.From.IsValid() {
		c.Dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.From, 0))
	}
	if s.Key != nil {
		name := s.Key.Name.String()
		c.TsigSecret = map[string]string{name: base64.StdEncoding.EncodeToString(s.Key.Secret)}
		m.SetTsig(name, dns.Fqdn(s.Key.Algorithm), 300, time.Now().Unix())
	}
	r, _, err := c.ExchangeContext(ctx, m, s.To.String())
	switch {
	case errors.Is(err, dns.ErrSig), errors.Is(err, dns.ErrAuth), errors.Is(err, dns.ErrTime), errors.Is(err, dns.ErrKey):
		return fmt.Errorf("its answer's signature: %w", err)
	case err != nil:
		return err
	case r.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("it answers %s", dns.RcodeToString[r.Rcode])
	}
	return nil
}
