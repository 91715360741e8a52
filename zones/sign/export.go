package sign

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/zones"
)

// soaSet is a SOA record whose serial number is not below a floor.
type soaSet struct {
	zones.RRset

	floor uint32
}

// soaNumbers is what the RDATA ends with, in octets: five numbers, the serial number the
// first (RFC 1035 section 3.3.13).
const soaNumbers = 20

// raise raises the serial number in RDATA, by RFC 1982's order, and returns it.
func (s *soaSet) raise(rdata []byte) []byte {
	if at := len(rdata) - soaNumbers; at >= 0 && int32(s.floor-binary.BigEndian.Uint32(rdata[at:])) > 0 {
		binary.BigEndian.PutUint32(rdata[at:], s.floor)
	}
	return rdata
}

// Append implements zones.RRset.
func (s *soaSet) Append(b *wire.Builder, owner wire.Ref, r *zones.Request) zones.Result {
	start := b.Mark()
	res := s.RRset.Append(b, owner, r)
	if res.Answers == 1 && s.floor != 0 {
		s.raise(b.Since(start))
	}
	return res
}

// All implements zones.RRset.
func (s *soaSet) All(yield func([]byte) bool) {
	for rdata := range s.RRset.All {
		if s.floor != 0 {
			rdata = s.raise(append([]byte(nil), rdata...))
		}
		if !yield(rdata) {
			return
		}
	}
}

// memory keeps the signatures of a zone's sets from one signing to the next, so that a
// change costs as many as it changes. It is safe for concurrent use.
type memory struct {
	mu   sync.Mutex
	made map[setHash][][]byte // of the last signing; by what was signed
}

// setHash stands for a set: its owner, type, TTL and records.
type setHash [sha256.Size]byte

// zone is Zone for records that have their serial number; keys and time are always the
// same. The first time it signs all that there is, some 50 microseconds a set and key: it
// gives way to who has questions to answer after each, and ends with ctx.
func (m *memory) zone(ctx context.Context, apex *wire.Name, records []zones.Record, keys []*Key, now time.Time) ([]zones.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	made := make(map[setHash][][]byte, len(m.made))
	out, err := zone(apex, records, keys, now, func(set *rrset, signers []*Key) ([][]byte, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		runtime.Gosched()
		h := set.hash()
		signatures := m.made[h]
		if signatures == nil {
			var err error
			if signatures, err = set.signAll(signers, Day(now)); err != nil {
				return nil, err
			}
		}
		made[h] = signatures
		return signatures, nil
	})
	if err == nil {
		m.made = made
	}
	return out, err
}

// hash is what a canonical set is known by.
func (s *rrset) hash() (out setHash) {
	h := sha256.New()
	head := binary.BigEndian.AppendUint16(nil, uint16(s.typ))
	_, _ = h.Write(append(binary.BigEndian.AppendUint32(head, s.ttl), s.owner...)) // never fails
	for _, rdata := range s.rdatas {
		_, _ = h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(rdata))))
		_, _ = h.Write(rdata)
	}
	h.Sum(out[:0])
	return out
}

// signAll is the set's signatures by each of the keys.
func (s *rrset) signAll(signers []*Key, day time.Time) ([][]byte, error) {
	out := make([][]byte, 0, len(signers))
	for _, k := range signers {
		rdata, err := s.sign(k, uint32(day.Unix()))
		if err != nil {
			return nil, err
		}
		out = append(out, rdata)
	}
	return out, nil
}
