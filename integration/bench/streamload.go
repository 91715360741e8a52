package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// streamLoadVerb makes this program a generator over streams.
const streamLoadVerb = "stream-load"

// streamGenerator asks over kept connections.
type streamGenerator struct {
	addr    string
	config  *tls.Config // nil: without TLS
	queries [][]byte    // each behind its length
	window  int
	end     time.Time
}

// streamLoadMain is the generator: PORT FILE WINDOW SECONDS ROOTS, as load.c has them, and
// the file with the certificate, empty without TLS.
func streamLoadMain(args []string, out io.Writer) error {
	if len(args) != 5 {
		return fmt.Errorf("%s: want PORT FILE WINDOW SECONDS ROOTS", streamLoadVerb)
	}
	window, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(args[3], 64)
	if err != nil {
		return err
	}
	input, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	g := &streamGenerator{addr: "127.0.0.1:" + args[0], window: window, queries: slices.Collect(queriesOf(input))}
	if args[4] != "" {
		text, err := os.ReadFile(args[4])
		if err != nil {
			return err
		}
		g.config = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "dns.test", NextProtos: []string{"dot"}}
		g.config.RootCAs.AppendCertsFromPEM(text)
	}
	s, err := g.run(time.Duration(seconds * 1e9))
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(s)
}

// run asks for a time over all connections; connecting counts, as it is little.
func (g *streamGenerator) run(d time.Duration) (*sample, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d+startTimeout)
	defer cancel()
	var conns []net.Conn
	for i := range keptConns {
		var conn net.Conn
		var err error
		if g.config == nil {
			conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", g.addr)
		} else {
			conn, err = (&tls.Dialer{Config: g.config}).DialContext(ctx, "tcp", g.addr)
		}
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, conn)
	}
	began := time.Now()
	g.end = began.Add(d)
	samples, times, errs := make([]sample, keptConns), make([]fault.Times, keptConns), make([]error, keptConns)
	var all sync.WaitGroup
	for i, conn := range conns {
		all.Go(func() {
			errs[i] = g.ask(conn, i, &samples[i], &times[i])
			conn.Close()
		})
	}
	all.Wait()
	sum := &sample{ElapsedNS: int64(time.Since(began))}
	var took fault.Times
	for i, s := range samples {
		if errs[i] != nil {
			return nil, fmt.Errorf("connection %d: %w", i, errs[i])
		}
		sum.Sent, sum.Received, sum.Noerror, sum.Octets = sum.Sent+s.Sent, sum.Received+s.Received, sum.Noerror+s.Noerror, sum.Octets+s.Octets
		took = append(took, times[i]...)
	}
	sum.P50, sum.P99 = float64(took.Quantile(0.5).Microseconds()), float64(took.Quantile(0.99).Microseconds())
	return sum, nil
}

// ask asks a window of questions at once and waits for all of their answers, again and
// again. It begins at another question than the other connections.
func (g *streamGenerator) ask(conn net.Conn, i int, s *sample, times *fault.Times) error {
	next := i * len(g.queries) / keptConns
	in := bufio.NewReaderSize(conn, 64<<10)
	var out []byte
	var head [2 + 12]byte
	for {
		now := time.Now()
		if now.After(g.end) {
			return nil
		}
		out = out[:0]
		for range g.window {
			out = append(out, g.queries[next]...)
			next = (next + 1) % len(g.queries)
		}
		if _, err := conn.Write(out); err != nil {
			return err
		}
		s.Sent += int64(g.window)
		for range g.window {
			if _, err := io.ReadFull(in, head[:]); err != nil {
				return err
			}
			size := int(binary.BigEndian.Uint16(head[:]))
			if _, err := in.Discard(size - 12); err != nil {
				return err
			}
			s.Received++
			s.Octets += int64(size)
			if head[2+2]&0x80 != 0 && head[2+3]&15 == 0 && head[2+7]+head[2+6] > 0 {
				s.Noerror++
			}
		}
		*times = append(*times, time.Since(now))
	}
}
