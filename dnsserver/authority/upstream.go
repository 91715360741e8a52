package authority

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/musterdns/muster/dnsserver/wire"
)

// Header octets and bits of a message, RFC 1035 section 4.1.1 and RFC 4035
// section 3.
const (
	flagsAt   = 2
	countsAt  = 4
	flagQR    = 0x8000
	flagAA    = 0x0400
	flagTC    = 0x0200
	flagRD    = 0x0100
	flagRA    = 0x0080
	flagAD    = 0x0020
	flagCD    = 0x0010
	maskOp    = 0x7800
	maskRCode = 0x000f
	flagDO    = 0x8000 // in the OPT record's TTL
)

// strayMax is how many datagrams that answer something else are passed over
// before an attempt is given up: somebody is guessing.
const strayMax = 32

// datagramMax is more than the size that the question offers to take.
const datagramMax = 4096

var (
	errStray     = errors.New("too many messages that do not answer the question")
	errUnrelated = errors.New("the answer is not to the question")
)

// ask returns the answer of the first upstream that has one. A failure of one
// (SERVFAIL, REFUSED, NOTIMP) is its answer only when no other does better.
func (f *forwarder) ask(ctx context.Context, q *wire.Query, stream bool) ([]byte, error) {
	first := int(f.preferred.Load()) % len(f.upstreams)
	var failure []byte
	var errs error
	for i := range f.upstreams {
		n := (first + i) % len(f.upstreams)
		resp, err := f.exchange(ctx, f.upstreams[n], q, stream)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("asking %s: %w", f.upstreams[n], err))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		switch rcodeOf(resp) {
		case wire.RCodeServFail, wire.RCodeRefused, wire.RCodeNotImp:
			failure = resp
			continue
		}
		f.preferred.Store(uint32(n))
		return resp, nil
	}
	if failure != nil {
		return failure, nil
	}
	return nil, errs
}

// exchange asks one upstream by datagram, twice at most, and by TCP when the
// answer is truncated and the client can take a longer one.
func (f *forwarder) exchange(ctx context.Context, to netip.AddrPort, q *wire.Query, stream bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	resp, err := f.datagram(ctx, to, q, f.timeout/2)
	if err != nil && ctx.Err() == nil {
		resp, err = f.datagram(ctx, to, q, f.timeout)
	}
	if err != nil || !stream || flagsOf(resp)&flagTC == 0 {
		return resp, err
	}
	return f.stream(ctx, to, q)
}

// datagram sends the question from a new socket, so with a new random port, and
// with a new random id: both have to be guessed to forge an answer (RFC 5452).
// The socket is connected, so the kernel drops what comes from elsewhere.
func (f *forwarder) datagram(ctx context.Context, to netip.AddrPort, q *wire.Query, wait time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	conn, msg, err := f.dial(ctx, "udp", to, q)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(msg); err != nil {
		return nil, err
	}
	buf := make([]byte, datagramMax)
	for range strayMax {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if resp := buf[:n]; answers(resp, msg, q) {
			return resp, nil
		}
	}
	return nil, errStray
}

// stream asks over TCP (RFC 7766).
func (f *forwarder) stream(ctx context.Context, to netip.AddrPort, q *wire.Query) ([]byte, error) {
	conn, msg, err := f.dial(ctx, "tcp", to, q)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...) // in one segment
	if _, err := conn.Write(framed); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	resp := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, resp); err != nil {
		return nil, err
	}
	if !answers(resp, msg, q) {
		return nil, errUnrelated
	}
	return resp, nil
}

// boundConn is a connection whose reads and writes end with a context.
type boundConn struct {
	net.Conn
	unbind func() bool
}

func (c *boundConn) Close() error {
	c.unbind()
	return c.Conn.Close()
}

// dial connects and makes the message to send. Reads and writes end with ctx.
func (f *forwarder) dial(ctx context.Context, network string, to netip.AddrPort, q *wire.Query) (net.Conn, []byte, error) {
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, nil, err
	}
	unbind := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // the past
	return &boundConn{conn, unbind}, question(binary.BigEndian.Uint16(id[:]), q), nil
}

// question is q as it is put to an upstream: the client's EDNS options stay
// here, they are between it and us.
func question(id uint16, q *wire.Query) []byte {
	flags := uint16(flagRD)
	if q.CD {
		flags |= flagCD
	}
	edns := uint16(0)
	if q.EDNS {
		edns = 1
	}
	m := binary.BigEndian.AppendUint16(nil, id)
	for _, v := range [...]uint16{flags, 1, 0, 0, edns} {
		m = binary.BigEndian.AppendUint16(m, v)
	}
	m = append(m, q.RawName...)
	m = binary.BigEndian.AppendUint16(m, uint16(q.Type))
	m = binary.BigEndian.AppendUint16(m, uint16(q.Class))
	if !q.EDNS {
		return m
	}
	do := uint16(0)
	if q.DO {
		do = flagDO
	}
	m = append(m, 0) // the OPT record: RFC 6891 section 6.1.2
	for _, v := range [...]uint16{uint16(wire.TypeOPT), min(q.UDPSize, wire.MaxPayload), 0, do, 0} {
		m = binary.BigEndian.AppendUint16(m, v)
	}
	return m
}

// answers reports whether resp answers msg, which asks q: a response with its id
// and question (RFC 5452 section 4.2), in any case.
func answers(resp, msg []byte, q *wire.Query) bool {
	end := wire.HeaderSize + len(q.RawName)
	if len(resp) < end+4 || resp[0] != msg[0] || resp[1] != msg[1] ||
		flagsOf(resp)&(flagQR|maskOp) != flagQR || binary.BigEndian.Uint16(resp[countsAt:]) != 1 {
		return false
	}
	var name wire.Name
	return name.Set(resp[wire.HeaderSize:end]) && name.Equal(&q.Name) &&
		string(resp[end:end+4]) == string(msg[end:end+4])
}

// adopt makes an upstream's answer ours: the client's id and its spelling of the
// question. We are no authority for it, have not validated it, and recurse.
func adopt(resp []byte, q *wire.Query) {
	binary.BigEndian.PutUint16(resp, q.ID)
	flags := flagsOf(resp)&^(flagAA|flagAD|flagRD|flagCD) | flagRA
	if q.RD {
		flags |= flagRD
	}
	if q.CD {
		flags |= flagCD
	}
	binary.BigEndian.PutUint16(resp[flagsAt:], flags)
	copy(resp[wire.HeaderSize:], q.RawName)
}

func flagsOf(msg []byte) uint16 { return binary.BigEndian.Uint16(msg[flagsAt:]) }

func rcodeOf(msg []byte) wire.RCode { return wire.RCode(flagsOf(msg) & maskRCode) }
