package dnsserver

import (
	"crypto/rand"
	"fmt"

	"github.com/musterdns/muster/dnsserver/cookie"
	"github.com/musterdns/muster/dnsserver/wire"
)

// NSIDMax bounds the server's name in octets, so that it takes no room from
// answers worth mentioning.
const NSIDMax = 64

// paddingBlock is what replies over encrypted transports are filled up to a
// multiple of, when the client pads its queries: RFC 8467 section 4.1.
const paddingBlock = 468

// keepaliveUnit is the unit of keepalive timeouts (RFC 7828 section 3.1), in
// nanoseconds.
const keepaliveUnit = 100e6

// replyOptions are the EDNS options that the reply to a query has because the
// query has them. What no query asked for is not sent.
type replyOptions struct {
	asked     wire.Asked
	cookie    [cookie.ClientSize + cookie.ServerSize]byte
	nsid      []byte // not changed once it is here
	keepalive uint16 // of a stream, in keepaliveUnit; 0: the transport does not have it
}

// Start begins a response to q, as Builder.Start does, with the EDNS options
// that every response to this client has. Who builds a response for it, at once
// or deferred, begins with this.
func (c *Client) Start(b *wire.Builder, buf []byte, q *wire.Query, limit int) {
	b.Start(buf, q, limit)
	if c.reply.asked != 0 {
		c.extend(b)
	}
}

func (c *Client) extend(b *wire.Builder) {
	o := &c.reply
	if o.asked&wire.AskedCookie != 0 {
		b.Cookie(o.cookie[:cookie.ClientSize], o.cookie[cookie.ClientSize:])
	}
	if o.asked&wire.AskedNSID != 0 && len(o.nsid) > 0 {
		b.NSID(o.nsid)
	}
	if o.asked&wire.AskedKeepalive != 0 && o.keepalive != 0 {
		b.Keepalive(o.keepalive)
	}
	if o.asked&wire.AskedPadding != 0 && c.Transport.encrypted() {
		b.Pad(paddingBlock) // RFC 7830 section 6: in the clear it would only add octets
	}
}

// encrypted reports whether nobody on the way can read what the transport
// carries.
func (t Transport) encrypted() bool {
	switch t {
	case TLS, HTTPS, QUIC:
		return true
	case TransportUnknown, UDP, TCP, transports:
	}
	return false
}

// stream reports whether the transport has made sure that the client receives
// what is sent to its address.
func (t Transport) stream() bool { return t != UDP && t != TransportUnknown }

// meet notes what q asks for beside its question, and who the client is known to
// be. It is called once for each query, before any response to it is begun.
func (r *responder) meet(q *wire.Query) {
	c := &r.client
	c.Known = c.Transport.stream()
	c.reply.asked = q.Asked
	if q.Asked == 0 {
		return
	}
	if q.Asked&wire.AskedNSID != 0 {
		c.reply.nsid = *r.srv.nsid.Load()
	}
	if q.Asked&wire.AskedCookie != 0 {
		var server [cookie.ServerSize]byte
		r.cookie = r.srv.cookies.Answer(q.Cookie, c.Addr.Addr(), uint32(c.Now/1e9), &server)
		r.tally.n[cookiesNew+int(r.cookie-cookie.ClientOnly)]++
		c.Known = c.Known || r.cookie == cookie.Valid
		copy(c.reply.cookie[copy(c.reply.cookie[:], q.Cookie[:cookie.ClientSize]):], server[:])
	}
}

// answerCookie is the reply to a query that has no question and wants its cookie
// confirmed or made: RFC 7873 section 5.4.
func (r *responder) answerCookie(buf []byte) []byte {
	r.client.Start(&r.builder, buf, r.query, wire.MinPayload)
	if r.cookie == cookie.Invalid {
		r.builder.SetRCode(wire.RCodeBadCookie)
	}
	return r.finish(buf)
}

// SetNSID makes id what clients that ask for the server's name get (RFC 5001);
// empty: nothing. It may be called at any time.
func (s *Server) SetNSID(id string) error {
	if err := CheckNSID(id); err != nil {
		return err
	}
	b := []byte(id)
	s.nsid.Store(&b)
	return nil
}

// CheckNSID reports why SetNSID would not take an id.
func CheckNSID(id string) error {
	if len(id) > NSIDMax {
		return fmt.Errorf("dnsserver: NSID: %d octets, at most %d", len(id), NSIDMax)
	}
	return nil
}

// SetCookieSecrets replaces the secrets of DNS cookies (RFC 7873): the first
// makes cookies, all are accepted. Servers that answer at one address must have
// the same (RFC 9018 section 1). Until it is called a random one is used. It may
// be called at any time.
func (s *Server) SetCookieSecrets(secrets []cookie.Secret) error {
	return s.cookies.SetSecrets(secrets)
}

// newCookies is a jar with a secret of its own.
func newCookies() (*cookie.Jar, error) {
	var own cookie.Secret
	_, _ = rand.Read(own[:]) // never fails
	return cookie.New([]cookie.Secret{own})
}
