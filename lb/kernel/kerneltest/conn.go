package kerneltest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// Patience bounds what must happen, on a busy machine.
const Patience = 10 * time.Second

// Serve accepts what comes to the listener until the test ends: it sends the machine's
// name on a line, and then echoes. accepted gets each connection first; nil: nobody does.
func (m *Machine) Serve(l net.Listener, accepted func(net.Conn)) {
	ended := make(chan struct{})
	m.tb.Cleanup(func() {
		_ = l.Close() // the test may have closed it
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.tb.Cleanup(func() { c.Close() })
			if accepted != nil {
				accepted(c)
			}
			go func() {
				if _, err := fmt.Fprintln(c, m.Name); err == nil {
					_, _ = io.Copy(c, c) // until either side ends
				}
			}()
		}
	}()
}

// Conn is a client's connection to a machine that serves.
type Conn struct {
	net.Conn
	Lines *bufio.Reader
	Name  string // of the machine
}

// Greet connects to what Serve serves, wherever that is, and learns its name; local is
// "" or the address to connect from. The connection is closed when the test ends.
func (m *Machine) Greet(local, address string) (*Conn, error) {
	c, err := m.Dial(net.Dialer{Timeout: Patience}, "tcp", local, address)
	if err != nil {
		return nil, err
	}
	m.tb.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		return nil, err
	}
	out := &Conn{Conn: c, Lines: bufio.NewReader(c)}
	line, err := out.Lines.ReadString('\n')
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("reading the name of the machine: %w", err)
	}
	out.Name = line[:len(line)-1]
	return out, nil
}

// Spread opens connections by dial until each of so many machines has one, and a dozen
// in all.
func Spread(tb testing.TB, machines int, dial func() *Conn) []*Conn {
	tb.Helper()
	var conns []*Conn
	seen := map[string]bool{}
	for len(conns) < 12 || len(seen) < machines {
		c := dial()
		seen[c.Name] = true
		if conns = append(conns, c); len(conns) > 200 {
			tb.Fatalf("200 connections went to %v only", seen)
		}
	}
	return conns
}

// Echo sends a line and reads it.
func (c *Conn) Echo() error {
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return err
	}
	line, err := c.Lines.ReadString('\n')
	if err == nil && line != "hello\n" {
		err = fmt.Errorf("echo of %q", line)
	}
	return err
}

// Alive fails for connections that have ended.
func Alive(tb testing.TB, when string, conns ...*Conn) {
	tb.Helper()
	for _, c := range conns {
		if err := c.Echo(); err != nil {
			tb.Errorf("%s: a connection to %s: %v", when, c.Name, err)
		}
	}
}

// UntilReset waits until the connection is reset, sending or silently.
func (c *Conn) UntilReset(sending bool) error {
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	if sending {
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for range pace.C {
			if _, err := fmt.Fprintln(c, "are you there?"); err != nil {
				if IsReset(err) {
					return nil
				}
				return fmt.Errorf("sending to a dead instance: %w, want a reset", err)
			}
		}
	}
	if _, err := c.Lines.ReadString('\n'); !IsReset(err) {
		return fmt.Errorf("waiting for a dead instance: %w, want a reset", err)
	}
	return nil
}

// IsReset reports whether the error is what a client sees of a reset. After a
// timeout of its own it is not.
func IsReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrDeadlineExceeded)
}

// Reply answers each datagram that comes to c, of 4,000 octets at most, until the test ends.
// The question has no room behind it: an answer may be appended to it.
func Reply(tb testing.TB, c net.PacketConn, answer func(question []byte) []byte) {
	tb.Helper()
	ended := make(chan struct{})
	tb.Cleanup(func() {
		c.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		buf := make([]byte, 4000)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(answer(buf[:n:n]), from) // who asked asks again
		}
	}()
}

// Ask sends datagrams of a size, the number first, until there is an answer, which begins
// with the number too: an earlier one that was sent again is answered again. It returns
// what follows.
func Ask(c net.Conn, number byte, size int) (string, error) {
	buf, question := make([]byte, 100), make([]byte, size)
	question[0] = number
	for range 50 {
		if _, err := c.Write(question); err != nil {
			return "", err
		}
		if err := c.SetReadDeadline(time.Now().Add(Patience / 50)); err != nil {
			return "", err
		}
		for {
			n, err := c.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return "", err
			}
			if n > 0 && buf[0] == number {
				return string(buf[1:n]), nil
			}
		}
	}
	return "", fmt.Errorf("no answer: %w", os.ErrDeadlineExceeded)
}
