package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// listener is one address that is listened on.
type listener struct {
	p       *Proxy
	cfg     Listener
	routing atomic.Pointer[routing]
	l       *net.TCPListener
	tls     *tls.Config // nil: cleartext
	h2      *h2Server
	park    *park
	running sync.WaitGroup // what serve waits for

	awake  atomic.Int64 // connections of HTTP/1.1 that have a goroutine
	endsAt atomic.Int64 // until when they may be idle, ns since 1970; 0: the proxy does not stop

	mu      sync.Mutex               // guards what is below
	conns   map[net.Conn]*clientConn // nil for those that have not said yet what they speak, and for HTTP/2
	tunnels map[*tunnel]struct{}
}

func newListener(p *Proxy, cfg Listener) *listener {
	l := &listener{p: p, cfg: cfg, conns: map[net.Conn]*clientConn{}, tunnels: map[*tunnel]struct{}{}}
	l.h2 = newH2Server(l)
	if cfg.Certificate != nil {
		l.tls = &tls.Config{
			GetCertificate: cfg.Certificate, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12,
		}
	}
	return l
}

// listen takes an inherited socket over, or binds one.
func (l *listener) listen(ctx context.Context) (err error) {
	var bound net.Listener
	if f := l.p.cfg.Inherited(l.socketName()); f != nil {
		defer f.Close()
		bound, err = net.FileListener(f)
	} else {
		var lc net.ListenConfig
		bound, err = lc.Listen(ctx, network(l.cfg.Address), l.cfg.Address)
	}
	if err != nil {
		return err
	}
	tcp, ok := bound.(*net.TCPListener)
	if !ok {
		bound.Close()
		return errors.New("it is no TCP address")
	}
	if l.park, err = newPark(); err != nil {
		bound.Close()
		return err
	}
	l.l = tcp
	return nil
}

// network is what an address is listened at: 0.0.0.0 is all of IPv4 alone, which
// it is not where package net is left the choice.
func network(address string) string {
	if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().Is4() {
		return "tcp4"
	}
	return "tcp"
}

// unbind takes back what listen has done.
func (l *listener) unbind() {
	l.l.Close()
	l.l = nil
	l.park.close()
	l.park.release()
}

// socketName is what the socket is handed over as: package l4's name for one of
// TCP, since a listener may become one of the other. The address is in it, so
// that a listener that has moved takes no old one over.
func (l *listener) socketName() string {
	return fmt.Sprintf("proxy %s tcp %s 0", l.cfg.Name, l.cfg.Address)
}

// acceptPause is how long accepting rests when there are no descriptors left.
const acceptPause = 10 * time.Millisecond

// serve accepts connections until the listener is closed, and returns when all
// have ended.
func (l *listener) serve(ctx context.Context) {
	defer l.running.Wait()
	l.running.Go(func() { _ = l.h2.http.Serve(&l.h2.conns) }) // fails when it is shut down
	l.running.Go(func() {
		l.park.run(func(fd int, c parked) {
			l.running.Go(func() {
				if c.k == nil {
					l.resume(ctx, fd)
					return
				}
				l.survive(c.k.sock, func() { l.attend(ctx, c.k) })
			})
		})
	})
	for {
		c, err := l.l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			l.p.counts.acceptErrors.Add(1)
			pause := time.NewTimer(acceptPause)
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
			continue
		}
		if !l.add(c) {
			l.p.counts.overflow.Add(1)
			c.Close()
			continue
		}
		l.running.Go(func() { l.survive(c, func() { l.converse(ctx, c) }) })
	}
}

// add notes a connection; false: there are too many, or no more are taken.
func (l *listener) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, bare := l.park.size(); len(l.conns)+bare >= l.p.cfg.Limits.Connections {
		return false
	}
	l.conns[c] = nil
	l.p.counts.accepted.Add(1)
	return true
}

func (l *listener) remove(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// converse serves a connection until it ends or is parked.
func (l *listener) converse(ctx context.Context, c *net.TCPConn) {
	switch k, adopted := l.greet(ctx, c); {
	case k != nil:
		l.attend(ctx, k)
	case !adopted:
		c.Close()
		l.remove(c)
	}
}

// resume goes on with a connection of which the park has kept no more than a descriptor.
func (l *listener) resume(ctx context.Context, fd int) {
	file := os.NewFile(uintptr(fd), "a parked connection")
	c, err := net.FileConn(file)
	file.Close() // c has a descriptor of its own
	if err != nil {
		l.p.counts.acceptErrors.Add(1) // no descriptors are left
		return
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return
	}
	l.survive(tcp, func() {
		k := l.meet(tcp, nil)
		if k == nil {
			tcp.Close()
			return
		}
		k.first = false
		k.asked.Store(true)
		l.attend(ctx, k)
	})
}

// survive serves a connection: a broken invariant there ends the connection,
// and not the proxy.
func (l *listener) survive(c *net.TCPConn, serve func()) {
	defer func() {
		if r := recover(); r != nil {
			l.p.notePanic(r)
			c.Close()
			l.remove(c)
		}
	}()
	serve()
}

// panicEvery is how often the stack of a panic is logged at most.
const panicEvery = time.Minute

// notePanic counts a panic, and logs it now and then.
func (p *Proxy) notePanic(r any) {
	p.counts.panics.Add(1)
	now, told := time.Now().UnixNano(), p.panicked.Load()
	if (told == 0 || now-told > int64(panicEvery)) && p.panicked.CompareAndSwap(told, now) {
		p.cfg.Log.Error("a connection was given up: an invariant of the proxy is broken", "panic", r, "stack", string(debug.Stack()))
	}
}

// greet finds out what a connection speaks. It returns nil when it has ended
// already, or is one of HTTP/2, which then was adopted.
func (l *listener) greet(ctx context.Context, tcp *net.TCPConn) (k *clientConn, adopted bool) {
	if l.tls == nil {
		return l.meet(tcp, nil), false
	}
	under := newUnderTLS(tcp, l.tls)
	_ = tcp.SetDeadline(time.Now().Add(l.p.cfg.Limits.ReadHead))
	if err := under.secure.HandshakeContext(ctx); err != nil {
		l.p.counts.handshakes.Add(1)
		if record, ok := errors.AsType[tls.RecordHeaderError](err); ok && record.Conn != nil {
			tellTLS(record.Conn, record.RecordHeader)
		}
		return nil, false
	}
	_ = tcp.SetDeadline(time.Time{})
	if under.secure.ConnectionState().NegotiatedProtocol == "h2" {
		l.h2.adopt(under.secure, tcp)
		return nil, true
	}
	return l.meet(tcp, under), false
}

// meet begins to speak HTTP/1.1 over a connection, in cleartext where under is nil;
// nil: it has ended.
func (l *listener) meet(tcp *net.TCPConn, under *underTLS) *clientConn {
	addr, err := netip.ParseAddrPort(tcp.RemoteAddr().String())
	if err != nil {
		return nil
	}
	pr, err := newProbe(tcp, false)
	if err != nil {
		return nil
	}
	k := &clientConn{p: l.p, l: l, c: tcp, sock: tcp, tcp: tcp, probe: pr, hop: newHop(l, addr), first: true}
	if under != nil {
		k.c, k.tcp, k.under = under.secure, nil, under
	}
	l.note(tcp, k)
	return k
}

// tellTLS tells a client that speaks HTTP in cleartext, by the first bytes that
// it sent, that TLS is spoken here.
func tellTLS(c net.Conn, first [5]byte) {
	switch string(first[:4]) {
	case "GET ", "HEAD", "POST", "PUT ", "DELE", "OPTI", "PATC":
		const text = "400 Bad Request\nwhy: this listener speaks TLS: ask with https\n"
		fmt.Fprintf(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
	}
}

// note says who serves a connection; nil: net/http.
func (l *listener) note(c net.Conn, k *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = k
}

// attend serves a connection of HTTP/1.1 until it ends or is parked.
func (l *listener) attend(ctx context.Context, k *clientConn) {
	begun, idle := k.serve(ctx)
	k.strip()
	if idle && l.park.add(k) && k.tcp == nil {
		return
	}
	if begun != nil {
		k.c.SetDeadline(time.Time{})
		l.note(k.tcp, nil)
		l.h2.adopt(&begunConn{Conn: k.c, begun: begun}, k.tcp)
		return
	}
	l.finish(k)
}

// finish closes a connection.
func (l *listener) finish(k *clientConn) {
	k.c.Close()
	l.remove(k.sock)
}

// ending reports whether connections that are idle are to end, and ends when.
func (l *listener) ending() bool    { return l.endsAt.Load() != 0 }
func (l *listener) ends() time.Time { return time.Unix(0, l.endsAt.Load()) }

// drain stops accepting, closes connections that go on being idle for stopLinger, and
// asks the others to go. Who waits for the end closes the park then.
func (l *listener) drain() {
	at := time.Now().Add(min(stopLinger, l.p.cfg.Limits.Drain))
	l.endsAt.Store(at.UnixNano())
	l.l.Close()
	l.h2.drain()
	l.park.shut()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.conns {
		if k != nil {
			k.stop(at)
		}
	}
	for t := range l.tunnels {
		t.closeIn(t.age)
	}
}

// cut closes what is left.
func (l *listener) cut() {
	l.park.close()
	l.h2.http.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.Close()
	}
}
