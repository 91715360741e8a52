package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What stands in messages of DNS Stateful Operations and DNS Push (RFC 8490 section
// 5.4, RFC 8765 section 6).
const (
	dsoOpcode     = 6
	dsoRetryDelay = 0x0000
	dsoKeepalive  = 0x0001
	dsoSubscribe  = 0x0040
	dsoPush       = 0x0041
	pushRemoved   = 0xffffffff // the TTL of a record that is gone
)

// pushRetry is how long to wait before a session is begun again, and pushKeepalive how
// often the server is sent something, within what it is asked to grant: a NAT that forgets
// connections in less than that is rare.
const (
	pushRetry     = time.Second
	pushKeepalive = 45 * time.Second
)

// pushFlags are those of watch --push.
type pushFlags struct {
	on         bool
	server     string
	typ        string
	ca         string
	serverName string
	insecure   bool
}

// push prints the records of a name as they come and go, until ctx ends.
func (s *session) push(ctx context.Context, f *pushFlags, target string) error {
	typ, err := parseType(f.typ)
	if err != nil {
		return err
	}
	q := queryFlags{}
	name, err := q.complete(ctx, s, target)
	if err != nil {
		return err
	}
	config, err := f.tls()
	if err != nil {
		return err
	}
	if f.server == "" { // where the server that is known answers, on DoT's own port
		host, _, _ := net.SplitHostPort(q.server)
		f.server = net.JoinHostPort(host, "853")
	} else if a, err := netip.ParseAddr(f.server); err == nil {
		f.server = net.JoinHostPort(a.String(), "853")
	}
	for told := false; ; {
		err := s.pushSession(ctx, f.server, config, name, typ)
		if refusal, ok := errors.AsType[*refusalError](err); ok {
			return refusal
		}
		if ctx.Err() != nil {
			return nil
		}
		wait := pushRetry
		if away, ok := errors.AsType[*awayError](err); ok {
			wait = max(wait, away.delay)
		}
		if !told {
			fmt.Fprintf(s.stderr, "muster: %s: %v%s; trying again\n", f.server, plainNetError(err), pushHint(err))
		}
		told = true
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// pushHint says what the likeliest way out of an error is; empty: nothing is likely.
func pushHint(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return " (--ca names the file of who signed it, --server-name the name that is in it)"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return " (a server answers there where its dns.tls says so; --server names another address)"
	}
	return ""
}

// tls is how the server is known.
func (f *pushFlags) tls() (*tls.Config, error) {
	c := &tls.Config{ServerName: f.serverName, InsecureSkipVerify: f.insecure, NextProtos: []string{"dot"}} //nolint:gosec // only by --insecure
	if f.ca == "" {
		return c, nil
	}
	pem, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, err
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, usagef("--ca %s: has no certificate in PEM", f.ca)
	}
	return c, nil
}

// refusalError is an answer to SUBSCRIBE that trying again does not change.
type refusalError struct{ code dnsmessage.RCode }

func (e *refusalError) Error() string {
	const notAuth = 9 // RFC 8765 section 6.2.2
	if e.code == notAuth {
		return "the server has no zone of the name"
	}
	if e.code == dnsmessage.RCodeNotImplemented {
		return "the server has no DNS Push"
	}
	return "the server refuses the subscription: " + rcodeName(e.code)
}

// awayError is a server's word that a client is to go, and for how long it is not to come
// again (RFC 8490 section 6.6.1).
type awayError struct{ delay time.Duration }

func (e *awayError) Error() string {
	return "the server sends its clients away for " + e.delay.String()
}

// pushSession subscribes and prints what it is told, until the connection ends.
func (s *session) pushSession(ctx context.Context, server string, config *tls.Config, name dnsmessage.Name, typ dnsmessage.Type) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := tls.Dialer{Config: config}
	conn, err := d.DialContext(ctx, "tcp", server)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var question []byte
	for label := range strings.SplitSeq(strings.TrimSuffix(name.String(), "."), ".") {
		question = append(append(question, byte(len(label))), label...)
	}
	question = binary.BigEndian.AppendUint16(append(question, 0), uint16(typ))
	question = binary.BigEndian.AppendUint16(question, uint16(dnsmessage.ClassINET))
	if _, err := conn.Write(append(dsoMessage(1, dsoSubscribe, question), keepaliveRequest(2)...)); err != nil {
		return err
	}
	go keepAlive(ctx, conn)
	for {
		msg, err := readMessage(conn, true)
		if err != nil {
			return err
		}
		if err := s.pushed(msg); err != nil {
			return err
		}
	}
}

// keepAlive sends something now and then, until ctx ends.
func keepAlive(ctx context.Context, conn net.Conn) {
	tick := time.NewTicker(pushKeepalive)
	defer tick.Stop()
	for id := uint16(3); ; id++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := conn.Write(keepaliveRequest(id | 1<<15)); err != nil {
			return // the reader sees why
		}
	}
}

// keepaliveRequest asks for the times of the session (RFC 8490 section 7.1): how long it
// is kept without subscription, of no matter here, and how often something is to be sent,
// which is a little less often than is done.
func keepaliveRequest(id uint16) []byte {
	interval := uint32((pushKeepalive + 15*time.Second) / time.Millisecond)
	return dsoMessage(id, dsoKeepalive, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, interval), interval))
}

// dsoMessage is a request of one TLV, with its length before it.
func dsoMessage(id, typ uint16, data []byte) []byte {
	msg := binary.BigEndian.AppendUint16(nil, uint16(12+4+len(data)))
	msg = binary.BigEndian.AppendUint16(msg, id)
	msg = append(msg, dsoOpcode<<3, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	msg = binary.BigEndian.AppendUint16(msg, typ)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(data)))
	return append(msg, data...)
}

// pushed takes a message of the server's: an answer, or records that have come (+) or
// gone (-), which it prints.
func (s *session) pushed(msg []byte) error {
	if len(msg) < 12 || msg[2]>>3&0xf != dsoOpcode {
		return errors.New("the server does not speak DNS Push")
	}
	if msg[2]&0x80 != 0 { // the response to a request
		if code := dnsmessage.RCode(msg[3] & 0xf); code != dnsmessage.RCodeSuccess {
			return &refusalError{code}
		}
		return nil
	}
	if len(msg) < 16 {
		return nil
	}
	switch typ := binary.BigEndian.Uint16(msg[12:]); {
	case typ == dsoRetryDelay && len(msg) >= 20:
		return &awayError{time.Duration(binary.BigEndian.Uint32(msg[16:])) * time.Millisecond}
	case typ != dsoPush:
		return nil
	}
	records, err := pushedRecords(msg[16:])
	if err != nil {
		return fmt.Errorf("a message cannot be read: %w", err)
	}
	at := time.Now().Format("15:04:05.000")
	for _, r := range records {
		sign, ttl := "+", fmt.Sprint(r.Header.TTL)
		if r.Header.TTL == pushRemoved {
			sign, ttl = "-", "0"
		}
		fmt.Fprintf(s.stdout, "%s %s %s %s IN %s %s\n", at, sign, r.Header.Name, ttl, typeName(r.Header.Type), rdata(r.Body))
	}
	return nil
}

// pushedRecords reads records, whose names are not compressed.
func pushedRecords(data []byte) ([]dnsmessage.Resource, error) {
	count := 0
	for at := 0; at < len(data); count++ {
		for at < len(data) && data[at] != 0 {
			at += 1 + int(data[at])
		}
		if at+11 > len(data) {
			return nil, errors.New("a record is cut off")
		}
		at += 11 + int(binary.BigEndian.Uint16(data[at+9:]))
	}
	head := append(binary.BigEndian.AppendUint16(make([]byte, 6), uint16(count)), 0, 0, 0, 0) // records as an answer section
	var p dnsmessage.Parser
	if _, err := p.Start(append(head, data...)); err != nil {
		return nil, err
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, err
	}
	return p.AllAnswers()
}
