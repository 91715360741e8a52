package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// queryTimeout is how long an answer may take before the query counts as lost.
const queryTimeout = time.Second

// pace is the interval between two questions that wait for an answer to change, if
// nothing else is said: short against the milliseconds that are measured, and long enough to leave
// the cores to what is measured.
const pace = 250 * time.Microsecond

// Client asks over one UDP socket, a question at a time.
type Client struct {
	conn  net.Conn
	id    uint16
	buf   []byte
	every time.Duration // between two questions of Await
}

// Dial makes a client of a server. It sends nothing.
func Dial(ctx context.Context, addr string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, buf: make([]byte, dns.MaxMsgSize), every: pace}, nil
}

// Close closes the socket.
func (c *Client) Close() { c.conn.Close() }

// question is a query with EDNS, so that extended errors may come back.
func question(id uint16, name string, qtype uint16) ([]byte, error) {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.Id = id
	m.SetEdns0(1232, false)
	return m.Pack()
}

// Ask asks once.
func (c *Client) Ask(name string, qtype uint16) (*dns.Msg, error) {
	c.id++
	query, err := question(c.id, name, qtype)
	if err != nil {
		return nil, err
	}
	c.conn.SetDeadline(time.Now().Add(queryTimeout))
	if _, err := c.conn.Write(query); err != nil {
		return nil, err
	}
	for {
		n, err := c.conn.Read(c.buf)
		if err != nil {
			return nil, err
		}
		m := new(dns.Msg)
		if err := m.Unpack(c.buf[:n]); err != nil {
			return nil, fmt.Errorf("the answer to %s cannot be read: %w", name, err)
		}
		if m.Id == c.id { // else it is a late answer to a question given up
			return m, nil
		}
	}
}

// Await asks again and again until the answer is right, and returns it. A
// query that is lost is no answer, and asked again.
func (c *Client) Await(ctx context.Context, name string, qtype uint16, right func(*dns.Msg) error) (*dns.Msg, error) {
	var m *dns.Msg
	err := Until(ctx, c.every, func() error {
		var err error
		if m, err = c.Ask(name, qtype); err != nil {
			return err
		}
		return right(m)
	})
	if err != nil {
		return nil, fmt.Errorf("asking for %s %s: %w", name, dns.TypeToString[qtype], err)
	}
	return m, nil
}

// Has is right for exactly these addresses, in any order.
func Has(want ...string) func(*dns.Msg) error {
	slices.Sort(want)
	return func(m *dns.Msg) error {
		if got := Addresses(m); m.Rcode != dns.RcodeSuccess || !slices.Equal(got, want) {
			return fmt.Errorf("%s with addresses %v, want %v", dns.RcodeToString[m.Rcode], got, want)
		}
		return nil
	}
}

// Answered is right for an answer with records in it.
func Answered(m *dns.Msg) error {
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 {
		return fmt.Errorf("%s with %d records", dns.RcodeToString[m.Rcode], len(m.Answer))
	}
	return nil
}

// RCode is right for an answer with the code.
func RCode(code int) func(*dns.Msg) error {
	return func(m *dns.Msg) error {
		if m.Rcode != code {
			return errors.New(dns.RcodeToString[m.Rcode])
		}
		return nil
	}
}

// Addresses are the addresses of an answer, sorted.
func Addresses(m *dns.Msg) []string {
	var out []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		}
	}
	slices.Sort(out)
	return out
}

// Stale returns the text of the extended error "stale answer" (RFC 8914 section
// 4.4), and whether the answer has one.
func Stale(m *dns.Msg) (string, bool) {
	opt := m.IsEdns0()
	if opt == nil {
		return "", false
	}
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok && e.InfoCode == dns.ExtendedErrorCodeStaleAnswer {
			return e.ExtraText, true
		}
	}
	return "", false
}
