package cli

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// udpSize is what is offered in EDNS: it passes every usual path whole.
const udpSize = 1232

// udpTries is how often a question is sent over UDP.
const udpTries = 2

// exchange asks, over UDP and then, when the answer did not fit, over TCP.
func (f *queryFlags) exchange(ctx context.Context, name dnsmessage.Name, typ dnsmessage.Type) (*dnsmessage.Message, string, error) {
	question := dnsmessage.Question{Name: name, Type: typ, Class: dnsmessage.ClassINET}
	if !f.tcp {
		var last error
		for range udpTries {
			m, err := f.ask(ctx, "udp", question)
			if err == nil && !m.Truncated {
				return m, "UDP", nil
			}
			if last = err; err == nil {
				break
			}
		}
		if last != nil {
			return nil, "", fmt.Errorf("asking %s over UDP: %w", f.server, plainNetError(last))
		}
	}
	m, err := f.ask(ctx, "tcp", question)
	if err != nil {
		return nil, "", fmt.Errorf("asking %s over TCP: %w", f.server, plainNetError(err))
	}
	return m, "TCP", nil
}

// plainNetError says a timeout in words, and drops addresses already said.
func plainNetError(err error) error {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return errors.New("no response in time")
	}
	if oe, ok := errors.AsType[*net.OpError](err); ok {
		return oe.Err
	}
	return err
}

// ask sends a question once and returns the response to it.
func (f *queryFlags) ask(ctx context.Context, network string, q dnsmessage.Question) (*dnsmessage.Message, error) {
	id, query, err := packQuery(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, f.server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // what fails then fails anyway
	defer stop()
	stream := network == "tcp"
	if stream { // RFC 1035 section 4.2.2: two octets of length
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	for {
		msg, err := readMessage(conn, stream)
		if err != nil {
			return nil, err
		}
		m := new(dnsmessage.Message)
		if err := m.Unpack(msg); err != nil {
			return nil, fmt.Errorf("the response cannot be read: %w", err)
		}
		// A late response to an earlier question is not this one's.
		if m.Response && m.ID == id {
			return m, nil
		}
	}
}

func packQuery(q dnsmessage.Question) (uint16, []byte, error) {
	var random [2]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	id := binary.BigEndian.Uint16(random[:])
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	var opt dnsmessage.ResourceHeader
	err := errors.Join(
		b.StartQuestions(), b.Question(q),
		b.StartAdditionals(), opt.SetEDNS0(udpSize, dnsmessage.RCodeSuccess, false), b.OPTResource(opt, dnsmessage.OPTResource{}),
	)
	if err != nil {
		return 0, nil, err
	}
	msg, err := b.Finish()
	return id, msg, err
}

func readMessage(conn net.Conn, stream bool) ([]byte, error) {
	if !stream {
		buf := make([]byte, 64<<10)
		n, err := conn.Read(buf)
		return buf[:n], err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(conn, buf)
	return buf, err
}

// extendedRCode joins the header's code with the upper bits in the OPT record
// (RFC 6891 section 6.1.3).
func extendedRCode(m *dnsmessage.Message) dnsmessage.RCode {
	for _, r := range m.Additionals {
		if r.Header.Type == dnsmessage.TypeOPT {
			return r.Header.ExtendedRCode(m.RCode)
		}
	}
	return m.RCode
}

func rcodeName(c dnsmessage.RCode) string {
	names := map[dnsmessage.RCode]string{
		dnsmessage.RCodeSuccess: "NOERROR", dnsmessage.RCodeFormatError: "FORMERR", dnsmessage.RCodeServerFailure: "SERVFAIL",
		dnsmessage.RCodeNameError: "NXDOMAIN", dnsmessage.RCodeNotImplemented: "NOTIMP", dnsmessage.RCodeRefused: "REFUSED", 16: "BADVERS",
	}
	if name, ok := names[c]; ok {
		return name
	}
	return "RCODE" + strconv.Itoa(int(c))
}

// edeOption is the extended DNS error (RFC 8914 section 2).
const edeOption = 15

func printOptions(w io.Writer, opt *dnsmessage.OPTResource) {
	for _, o := range opt.Options {
		if o.Code == edeOption && len(o.Data) >= 2 {
			fmt.Fprintf(w, ";; extended error %d", binary.BigEndian.Uint16(o.Data))
			if text := o.Data[2:]; len(text) > 0 {
				fmt.Fprintf(w, ": %s", strings.Trim(strconv.QuoteToASCII(string(text)), `"`))
			}
			fmt.Fprintln(w)
		}
	}
}

// rdata is a record's data in presentation form.
func rdata(body dnsmessage.ResourceBody) string {
	switch b := body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(b.A).String()
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(b.AAAA).String()
	case *dnsmessage.SRVResource:
		return fmt.Sprintf("%d %d %d %s", b.Priority, b.Weight, b.Port, b.Target)
	case *dnsmessage.TXTResource:
		quoted := make([]string, len(b.TXT))
		for i, t := range b.TXT {
			quoted[i] = strconv.QuoteToASCII(t)
		}
		return strings.Join(quoted, " ")
	case *dnsmessage.PTRResource:
		return b.PTR.String()
	case *dnsmessage.NSResource:
		return b.NS.String()
	case *dnsmessage.CNAMEResource:
		return b.CNAME.String()
	case *dnsmessage.MXResource:
		return fmt.Sprintf("%d %s", b.Pref, b.MX)
	case *dnsmessage.SOAResource:
		return fmt.Sprintf("%s %s %d %d %d %d %d", b.NS, b.MBox, b.Serial, b.Refresh, b.Retry, b.Expire, b.MinTTL)
	case *dnsmessage.UnknownResource:
		return fmt.Sprintf("\\# %d %x", len(b.Data), b.Data) // RFC 3597 section 5
	}
	return "?"
}
