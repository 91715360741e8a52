package authority

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// Transfer says who may have a whole zone (RFC 5936, RFC 1995). Nobody may without
// one. Of those whose Zone a zone is or lies under, label by label, the ones with the
// longest decide alone, as of Rules: what is said of a parent opens no child that has
// its own. Several of one Zone are alternatives.
type Transfer struct {
	Zone  string         // the zone, and those below it; "*" or "." for all
	Allow []netip.Prefix // who may; none: any that has Key
	Key   string         // the key that the request must be signed with; empty: it need not be
}

// transferRule is a Transfer made ready.
type transferRule struct {
	zone  wire.Name
	allow []netip.Prefix
	key   string
}

func newTransferRules(in []Transfer) ([]transferRule, error) {
	rules := make([]transferRule, 0, len(in))
	for i, t := range in {
		zone, err := ruleZone(t.Zone)
		if err != nil {
			return nil, fmt.Errorf("Transfer[%d].Zone: %w", i, err)
		}
		if len(t.Allow) == 0 && t.Key == "" {
			return nil, fmt.Errorf("authority: Transfer[%d]: neither Allow nor Key: nobody could transfer", i)
		}
		for j, p := range t.Allow {
			if !p.IsValid() {
				return nil, fmt.Errorf("Transfer[%d].Allow[%d]: not a network", i, j)
			}
		}
		rules = append(rules, transferRule{zone, t.Allow, t.Key})
	}
	slices.SortStableFunc(rules, func(a, b transferRule) int { return cmp.Compare(b.zone.Labels(), a.zone.Labels()) })
	return rules, nil
}

// transfers reports whether a client may have the zone.
func (p *policy) transfers(zone *wire.Name, from *dnsserver.Client) bool {
	longest := -1 // labels; the rules with most come first
	for i := range p.transfer {
		r := &p.transfer[i]
		if _, covers := zone.Below(&r.zone); !covers || r.zone.Labels() < longest {
			continue
		}
		longest = r.zone.Labels()
		if (r.key == "" || r.key == from.Key) && (len(r.allow) == 0 || contains(r.allow, from.Addr.Addr())) {
			return true
		}
	}
	return false
}

// transfer screens a question for a transfer. Over a stream it is left to ServeSlow.
// Over UDP there is no AXFR (RFC 5936 section 4.2), and an IXFR is answered with the
// SOA alone, by which the client sees that there is more to be had over TCP (RFC 1995
// section 2).
func (s *scratch) transfer(tree *zones.Tree) Outcome {
	zone := tree.Zone(&s.q.Name)
	switch {
	case zone == nil || !s.p.transfers(&s.q.Name, s.from):
		return s.deny()
	case s.req.Stream && s.from.Transport != dnsserver.HTTPS:
		return Transferring
	case s.q.Type == wire.TypeAXFR: // nor over HTTPS, where a question has one message for an answer
		s.b.EDE(wire.EDENotSupported, nil)
		return Unsupported
	}
	s.b.SetAA(true)
	s.a = zones.Answer{Zone: zone, EDE: zones.EDENone}
	s.append(zone.SOA(), s.q.Name.Wire(), wire.RefQName, wire.Answer)
	return Answered
}

// transfersMax is how many transfers run at once: each has the records of a whole
// zone in its hands.
const transfersMax = 16

// serveTransfer answers an AXFR or IXFR over a stream.
func (h *Handler) serveTransfer(ctx context.Context, q *wire.Query, from dnsserver.Client, w dnsserver.Writer) error {
	tree := h.tree.Load()
	zone := tree.Zone(&q.Name)
	if zone == nil || !h.policy.Load().transfers(&q.Name, &from) { // a new configuration has come in between
		return h.reply(q, from, w, Denied, wire.EDEProhibited)
	}
	select {
	case h.transfers <- struct{}{}:
		defer func() { <-h.transfers }()
	default:
		return h.reply(q, from, w, TransferFailed, wire.EDEOther)
	}
	now, err := h.journal.current(ctx, tree, zone)
	if errors.Is(err, zones.ErrNoExport) { // of SkyDNS, or reverse: it never will be
		return errors.Join(h.reply(q, from, w, Unsupported, wire.EDENotSupported), err)
	}
	if err != nil {
		return errors.Join(h.reply(q, from, w, TransferFailed, wire.EDENotReady), err)
	}
	out := &transferWriter{q: q, from: &from, w: w}
	out.start()
	if q.Type == wire.TypeIXFR {
		err = h.incremental(out, zone, now)
	} else {
		err = out.whole(now)
	}
	if err != nil {
		h.shardOfSlow().count(from.Transport, TransferFailed)
		return fmt.Errorf("transferring %s to %s: %w", q.Name.String(), from.Addr, err)
	}
	h.shardOfSlow().count(from.Transport, Transferred)
	return nil
}

// incremental writes what has changed since the serial number that the client has,
// or the whole zone where that is not known any more or would take less (RFC 1995
// section 4).
func (h *Handler) incremental(out *transferWriter, zone *zones.Zone, now *zones.Export) error {
	serial, ok := ixfrSerial(out.q.Msg)
	if !ok {
		return out.whole(now)
	}
	if int32(now.Serial-serial) <= 0 { // RFC 1982: the client is up to date, RFC 1995 section 2
		out.record(&now.SOA)
		return out.end()
	}
	old := h.journal.at(zone.Apex(), serial)
	if old == nil {
		return out.whole(now)
	}
	deleted, added := difference(old.Records, now.Records)
	if len(deleted)+len(added) >= len(now.Records) {
		return out.whole(now)
	}
	out.record(&now.SOA)
	out.record(&old.SOA)
	for _, r := range deleted {
		out.record(r)
	}
	out.record(&now.SOA)
	for _, r := range added {
		out.record(r)
	}
	out.record(&now.SOA)
	return out.end()
}

// ixfrSerial is the serial number of the SOA that an IXFR brings.
func ixfrSerial(msg []byte) (uint32, bool) {
	var m dns.Msg
	if m.Unpack(msg) != nil || len(m.Ns) != 1 {
		return 0, false
	}
	soa, ok := m.Ns[0].(*dns.SOA)
	if !ok {
		return 0, false
	}
	return soa.Serial, true
}

// difference is what leads from old to now, both in order.
func difference(old, now []zones.Record) (deleted, added []*zones.Record) {
	for len(old) > 0 || len(now) > 0 {
		var c int
		switch {
		case len(old) == 0:
			c = 1
		case len(now) == 0:
			c = -1
		default:
			c = zones.CompareRecords(old[0], now[0])
		}
		if c < 0 {
			deleted = append(deleted, &old[0])
		}
		if c > 0 {
			added = append(added, &now[0])
		}
		if c <= 0 {
			old = old[1:]
		}
		if c >= 0 {
			now = now[1:]
		}
	}
	return deleted, added
}

// transferMessage bounds one message of a transfer, in octets: what is behind the
// first 16 KiB cannot be pointed at by names, and a client that reads slowly is
// waited for message by message.
const transferMessage = 16 << 10

// transferWriter writes records into as many messages as they take (RFC 5936 section
// 2.2).
type transferWriter struct {
	q    *wire.Query
	from *dnsserver.Client
	w    dnsserver.Writer
	b    wire.Builder
	buf  []byte
	n    int // records in the message
	err  error
}

func (t *transferWriter) start() {
	if t.buf == nil {
		t.buf = make([]byte, wire.MaxMessage)
	}
	t.from.Start(&t.b, t.buf, t.q, min(t.w.Limit(), wire.MaxMessage))
	t.b.SetAA(true)
	t.n = 0
}

// record writes a record. After an error it does nothing.
func (t *transferWriter) record(r *zones.Record) {
	if t.err != nil {
		return
	}
	full := t.n > 0 && len(t.buf)-t.b.Room() > transferMessage
	if !full && t.write(r) {
		return
	}
	if t.flush(); t.err == nil && !t.write(r) {
		t.err = fmt.Errorf("a record of type %s and %d octets fits no message", r.Type, len(r.RData))
	}
}

func (t *transferWriter) write(r *zones.Record) bool {
	_, ok := t.b.RROwner(wire.Answer, r.Owner, r.Type, wire.ClassIN, r.TTL, r.RData)
	if ok {
		t.n++
	}
	return ok
}

// flush sends the message and begins another.
func (t *transferWriter) flush() {
	if t.err == nil {
		t.err = t.w.WriteMsg(t.b.Finish())
	}
	t.start()
}

// end sends what is left.
func (t *transferWriter) end() error {
	if t.n > 0 {
		t.flush()
	}
	return t.err
}

// whole writes a zone from SOA to SOA (RFC 5936 section 2.2).
func (t *transferWriter) whole(e *zones.Export) error {
	t.record(&e.SOA)
	for i := range e.Records {
		t.record(&e.Records[i])
	}
	t.record(&e.SOA)
	return t.end()
}

// expire tells a secondary how long the zone is good (RFC 7314 section 3): here, at
// its source, as long as the SOA says.
func (s *scratch) expire() {
	if s.q.Asked&wire.AskedExpire == 0 || s.a.Zone == nil || s.q.Type != wire.TypeSOA {
		return
	}
	for rdata := range s.a.Zone.SOA().All {
		if at := len(rdata) - 8; at >= 0 { // expire and minimum end it, RFC 1035 section 3.3.13
			s.b.Option(wire.OptionExpire, rdata[at:at+4])
		}
	}
}
