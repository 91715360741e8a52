package dnsserver

import (
	"time"

	"github.com/musterdns/muster/dnsserver/tsig"
	"github.com/musterdns/muster/dnsserver/wire"
)

// SetKeys replaces the keys of transaction signatures (RFC 8945); nil: there are
// none. They are the same for every transport. It may be called at any time.
func (s *Server) SetKeys(k *tsig.Keys) { s.keys.Store(k) }

// verify checks the signature of the query at hand. If it holds, the query is read
// again without it, and what answers it will be signed.
func (r *responder) verify() wire.Disposition {
	unsigned, session, fault, err := r.srv.keys.Load().Verify(r.query, seconds(r.client.Now))
	switch {
	case err != nil:
		r.query.TSIG = nil
		return wire.FormErr
	case fault != 0:
		r.query.TSIGError, r.session = fault, session
		return wire.BadKey
	}
	r.session, r.client.Key = session, session.Key()
	return wire.ParseQuery(unsigned, r.query)
}

// seconds is a time in nanoseconds since 1970 in seconds.
func seconds(now int64) uint64 { return uint64(max(now, 0)) / 1e9 }

// forget ends the session of the query before.
func (r *responder) forget() {
	if r.session != nil {
		r.session, r.client.Key = nil, ""
	}
}

// signedMin is room for a header, the longest question and an OPT record, however
// much of a client's limit the signature takes.
const signedMin = 300

// limit is the greatest reply to the query at hand before it is signed.
func (r *responder) limit() int {
	limit := replyLimit(r.query, r.client.Transport)
	if r.session != nil {
		limit = max(limit-r.session.Size(), signedMin)
	}
	return limit
}

// sign signs a reply, which is the beginning of buf, if the query was signed.
func (r *responder) sign(reply, buf []byte) []byte {
	switch {
	case r.session == nil:
		return reply
	case r.query.TSIG != nil: // not verified: the clocks differ
		r.query.TSIG = nil
		reply = r.builder.Finish() // without the error that is not signed
		return r.session.SignBadTime(buf[:len(reply)], seconds(r.client.Now))
	}
	return r.session.Sign(buf[:len(reply)], seconds(r.client.Now))
}

// signed is a Writer to the client of the query at hand, which signs what is written
// if the query was signed.
func (r *responder) signed(w Writer) Writer {
	if r.session == nil {
		return w
	}
	return &signingWriter{w, r.session}
}

type signingWriter struct {
	to      Writer
	session *tsig.Session
}

func (w *signingWriter) Limit() int { return w.to.Limit() - w.session.Size() }

func (w *signingWriter) WriteMsg(msg []byte) error {
	signed := append(make([]byte, 0, len(msg)+w.session.Size()), msg...)
	return w.to.WriteMsg(w.session.Sign(signed, seconds(time.Now().UnixNano())))
}
