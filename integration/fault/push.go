package fault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/dnstest"
)

// PushOptions is what Push does.
type PushOptions struct {
	Subscribers int
	Runs        int           // changes
	Quiet       time.Duration // for which nothing changes
	// Settle is how long the collector has for what the handshakes left, before the CPU
	// of such a time is counted.
	Settle time.Duration
}

// PushResult is what came of it.
type PushResult struct {
	Times Times // from a put's return to the message, of each subscriber and change
	// Last is, for each change, when the last subscriber was told.
	Last Times
	// Alone and Quiet are the CPU of the server, in a time in which nothing changed:
	// before there was a subscriber, and with all of them.
	Alone, Quiet time.Duration
	CPU          time.Duration // of a message
}

// The stateful operations that a subscriber knows (RFC 8490 section 5.4, RFC 8765
// section 6).
const (
	dsoOpcode    = 6
	dsoKeepalive = 0x01
	dsoSubscribe = 0x40
	dsoPush      = 0x41
)

// portTLS is where a lab's server answers over TLS.
const portTLS = 8530

// Push measures how long subscribers of DNS Push (RFC 8765), each with a connection of
// its own over TLS, wait for the message of a change: an instance without checks that
// moves. A put that returns has been seen by etcd's watchers at best.
func Push(ctx context.Context, l *Lab, o PushOptions) (*PushResult, error) {
	e, err := l.Etcd(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	config, err := Certify(l.Dir)
	if err != nil {
		return nil, err
	}
	s, err := l.Run(ctx, Settings{Etcd: e.URL, DNS: fmt.Sprintf("tls: [%q], certificates: [{cert: %q, key: %q}], tcp: {max_per_client: %d}",
		l.at(hostMuster, portTLS), l.Path(CertFile), l.Path(KeyFile), o.Subscribers)})
	if err != nil {
		return nil, err
	}
	r := &PushResult{}
	if r.Alone, err = s.cpuIn(ctx, o.Quiet); err != nil {
		return nil, err
	}
	var all subscribers
	defer all.close()
	if err := all.subscribe(ctx, l.at(hostMuster, portTLS), config, o.Subscribers); err != nil {
		return nil, err
	}
	if _, err := s.cpuIn(ctx, o.Settle); err != nil {
		return nil, err
	}
	if r.Quiet, err = s.cpuIn(ctx, o.Quiet); err != nil {
		return nil, err
	}
	before, err := s.CPU()
	if err != nil {
		return nil, err
	}
	for i := range o.Runs {
		told := all.expect(netip.MustParseAddr(Address(i)))
		if _, err := e.Put(ctx, Instance("web", "one"), fmt.Sprintf(`{"address":%q,"port":8080}`, Address(i))); err != nil {
			all.close() // so that those who wait end
			_, _ = told()
			return nil, err
		}
		times, err := told()
		if err != nil {
			return nil, fmt.Errorf("change %d: %w\n%s", i, err, s.LogTail())
		}
		r.Times, r.Last = append(r.Times, times...), append(r.Last, times.Max())
	}
	after, err := s.CPU()
	r.CPU = (after - before) / time.Duration(max(o.Runs*o.Subscribers, 1))
	return r, err
}

// A server's certificate and key, in the directory that Certify was told.
const (
	CertFile = "cert.pem"
	KeyFile  = "key.pem"
)

// Certify writes a certificate and its key into a directory, and returns what a client
// of DNS over TLS needs to know.
func Certify(dir string) (*tls.Config, error) {
	cert, roots, err := dnstest.NewCertificate()
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	for name, block := range map[string]*pem.Block{
		CertFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, KeyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	return &tls.Config{RootCAs: roots, ServerName: "dns.test", NextProtos: []string{"dot"}}, nil
}

// cpuIn is the CPU of the server in a time.
func (s *Server) cpuIn(ctx context.Context, quiet time.Duration) (time.Duration, error) {
	before, err := s.CPU()
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(quiet):
	}
	after, err := s.CPU()
	return after - before, err
}

// subscribers are connections, each with a subscription to the addresses of web.
type subscribers []*tls.Conn

func (all subscribers) close() {
	for _, c := range all {
		c.NetConn().Close()
	}
}

// subscribe makes n subscribers, some at a time.
func (all *subscribers) subscribe(ctx context.Context, server string, config *tls.Config, n int) error {
	*all = make(subscribers, 0, n)
	d := tls.Dialer{Config: config}
	name := make([]byte, 255)
	end, err := dns.PackDomainName("web."+Zone, name, 0, nil, false)
	if err != nil {
		return err
	}
	question := binary.BigEndian.AppendUint16(name[:end], dns.TypeA)
	question = binary.BigEndian.AppendUint16(question, dns.ClassINET)
	const hour = 3_600_000 // milliseconds: nothing is sent meanwhile (RFC 8490 section 6.5.2)
	times := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, hour), hour)
	msg := slices.Concat(dsoRequest(1, dsoKeepalive, times), dsoRequest(2, dsoSubscribe, question))
	for range n {
		conn, err := d.DialContext(ctx, "tcp", server)
		if err != nil {
			return err
		}
		c, ok := conn.(*tls.Conn)
		if !ok {
			return fmt.Errorf("a connection of type %T", conn)
		}
		*all = append(*all, c)
		if _, err := c.Write(msg); err != nil {
			return err
		}
		for _, what := range []string{"KEEPALIVE", "SUBSCRIBE"} {
			if answer, err := readFramed(c); err != nil || answer[2]>>3 != 1<<4|dsoOpcode || answer[3]&0xf != dns.RcodeSuccess {
				return fmt.Errorf("the answer to %s is %x: %w", what, answer, err)
			}
		}
	}
	return nil
}

// dsoRequest is a request of one TLV, with its length before it.
func dsoRequest(id, typ byte, data []byte) []byte {
	msg := binary.BigEndian.AppendUint16(nil, uint16(12+4+len(data)))
	msg = append(msg, 0, id, dsoOpcode<<3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, typ)
	return append(binary.BigEndian.AppendUint16(msg, uint16(len(data))), data...)
}

// expect has each subscriber wait for a message with an address. The function that it
// returns waits for them all, and says how long after its call that was for each.
func (all subscribers) expect(address netip.Addr) (told func() (Times, error)) {
	at := make([]time.Time, len(all))
	failed := make([]error, len(all))
	var waiting sync.WaitGroup
	for i, c := range all {
		_ = c.SetReadDeadline(time.Now().Add(startTimeout)) // fails only once closed
		waiting.Go(func() {
			var msg []byte
			for failed[i] == nil && !bytes.Contains(msg, address.AsSlice()) {
				msg, failed[i] = readFramed(c)
			}
			if at[i] = time.Now(); failed[i] == nil {
				failed[i] = pushes(msg, address)
			}
		})
	}
	return func() (Times, error) {
		began := time.Now()
		waiting.Wait()
		if err := errors.Join(failed...); err != nil {
			return nil, err
		}
		times := make(Times, len(all))
		for i := range at {
			times[i] = max(at[i].Sub(began), 0) // some are told before etcd has answered
		}
		return times, nil
	}
}

// pushes returns an error unless a message is a PUSH with an address that is there.
func pushes(msg []byte, address netip.Addr) error {
	if len(msg) < 16 || msg[2]>>3 != dsoOpcode || binary.BigEndian.Uint16(msg[12:]) != dsoPush {
		return fmt.Errorf("%x: is no PUSH", msg)
	}
	for at := 16; at < len(msg); {
		rr, next, err := dns.UnpackRR(msg, at)
		if err != nil {
			return err
		}
		if a, ok := rr.(*dns.A); ok && a.A.String() == address.String() && a.Hdr.Ttl != 1<<32-1 { // removed: RFC 8765 section 6.3.1
			return nil
		}
		at = next
	}
	return fmt.Errorf("%x: does not bring %s", msg, address)
}

// readFramed reads a message of a stream.
func readFramed(c net.Conn) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(c, msg)
	if err == nil && len(msg) < 12 {
		err = fmt.Errorf("%x: is no message", msg)
	}
	return msg, err
}
