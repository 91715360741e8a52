package authority

import (
	"iter"
	"sync/atomic"

	"github.com/musterdns/muster/dnsserver"
	"github.com/musterdns/muster/dnsserver/wire"
)

// Outcome is how a query was answered. Zero is unknown.
type Outcome uint8

// The outcomes. Each has one response code.
const (
	OutcomeUnknown   Outcome = iota
	Answered                 // records of the type asked for
	AliasOnly                // an alias that leads out of our zones, or in circles
	Referred                 // a delegation
	NoData                   // the name exists, the type does not
	NXDomain                 // the name does not exist
	TooLong                  // a DNAME makes a name of more than 255 octets
	OutsideZones             // in no zone of ours
	Denied                   // an access rule forbids it
	Unsupported              // a class, transfer or meta type that is not served
	Malformed                // a type that no question may have
	NotReady                 // the zone knows nothing yet, or nothing fresh enough
	Forwarded                // a resolver's answer was passed on
	ForwardingFailed         // no resolver answered
	Limited                  // over the rate limit: nothing was sent
	Slipped                  // over the rate limit: TC was sent
	CookieWanted             // over the rate limit: a cookie was sent to come back with
	Transferring             // a transfer has begun: it is counted when it ends
	Transferred              // a zone was transferred
	TransferFailed           // it could not be, or too many others were under way
	outcomes
)

// String is the outcome's name in metrics.
func (o Outcome) String() string {
	switch o {
	case Answered:
		return "answer"
	case AliasOnly:
		return "alias"
	case Referred:
		return "referral"
	case NoData:
		return "nodata"
	case NXDomain:
		return "nxdomain"
	case TooLong:
		return "yxdomain"
	case OutsideZones:
		return "outside"
	case Denied:
		return "denied"
	case Unsupported:
		return "unsupported"
	case Malformed:
		return "malformed"
	case NotReady:
		return "not_ready"
	case Forwarded:
		return "forwarded"
	case ForwardingFailed:
		return "forwarding_failed"
	case Limited:
		return "limited"
	case Slipped:
		return "slipped"
	case CookieWanted:
		return "cookie_wanted"
	case Transferred:
		return "transfer"
	case TransferFailed:
		return "transfer_failed"
	case OutcomeUnknown, Transferring, outcomes:
	}
	return "unknown"
}

// MarshalText is String.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// RCode is the response code that goes with the outcome. For Forwarded, whose
// code is the resolver's, it is NOERROR.
func (o Outcome) RCode() wire.RCode {
	switch o {
	case NXDomain:
		return wire.RCodeNXDomain
	case TooLong:
		return wire.RCodeYXDomain
	case OutsideZones, Denied, Unsupported:
		return wire.RCodeRefused
	case Malformed:
		return wire.RCodeFormErr
	case NotReady, ForwardingFailed, TransferFailed:
		return wire.RCodeServFail
	case CookieWanted:
		return wire.RCodeBadCookie
	case OutcomeUnknown, Answered, AliasOnly, Referred, NoData, Forwarded, Limited, Slipped, Transferring, Transferred, outcomes:
	}
	return wire.RCodeNoError
}

// transports is how many transports are told apart; later ones count as unknown.
const transports = 8

// shard is counters that one goroutine at a time writes, nearly always the same
// ones on one core: no two shards share a cache line.
type shard struct {
	queries   [transports][outcomes]atomic.Uint64
	chains    atomic.Uint64
	signed    atomic.Uint64 // sets whose signatures were there
	unsigned  atomic.Uint64 // answers that had to wait for one
	explained atomic.Uint64 // a second, and behind explainedBits how many refusals were explained in it
	_         [64]byte
}

// explainedMax is how many refusals a second are explained to clients whose addresses may be
// forged, by each core. An explanation makes the refusal greater than its question.
const (
	explainedMax  = 16
	explainedBits = 16
)

// explain reports whether one more refusal may be explained at a time, and counts it.
func (s *shard) explain(now int64) bool {
	old, second := s.explained.Load(), uint64(now/1e9)
	if old>>explainedBits != second {
		return s.explained.CompareAndSwap(old, second<<explainedBits|1)
	}
	return old&(1<<explainedBits-1) < explainedMax && s.explained.CompareAndSwap(old, old+1)
}

func (s *shard) count(t dnsserver.Transport, o Outcome) {
	if t >= transports {
		t = dnsserver.TransportUnknown
	}
	s.queries[t][o].Add(1)
}

// Count is how many queries came over a transport and were answered in a way.
type Count struct {
	Transport dnsserver.Transport
	Outcome   Outcome
	Queries   uint64
}

// Counts yields every combination that has occurred.
func (h *Handler) Counts() iter.Seq[Count] {
	return func(yield func(Count) bool) {
		for t := range transports {
			for o := range outcomes {
				var sum uint64
				for i := range h.shards {
					sum += h.shards[i].queries[t][o].Load()
				}
				if sum > 0 && !yield(Count{dnsserver.Transport(t), o, sum}) {
					return
				}
			}
		}
	}
}

// ChainsCut is how many alias chains were cut: longer than the limit, or leading
// in circles.
func (h *Handler) ChainsCut() uint64 {
	var sum uint64
	for i := range h.shards {
		sum += h.shards[i].chains.Load()
	}
	return sum
}
