package wire

import "encoding/binary"

// Query is a parsed query. It refers to the received message and is valid as
// long as that is. The zero Query is ready for ParseQuery; one Query serves for
// any number of messages, one after the other.
type Query struct {
	ID         uint16
	Opcode     Opcode
	RD, CD, AD bool
	Msg        []byte // the whole message
	RawName    []byte // the question's name as received, case kept; nil when there is no question
	Name       Name   // the same, lower-cased
	Type       Type
	Class      Class

	EDNS    bool
	Version uint8
	UDPSize uint16 // as offered; below 512 is read as 512 (RFC 6891 section 6.2.3)
	DO      bool
	CO      bool   // with DO: NXDOMAIN may be said beside compact denial (RFC 9824 section 5.1)
	Options []byte // the OPT record's RDATA, well formed
	Asked   Asked  // which options there are that a reply may answer
	Cookie  []byte // with AskedCookie: the client's cookie, and the server's behind it or nothing
	Subnet  Subnet // with AskedSubnet

	// TSIG is the transaction signature's record, from its owner to its end,
	// with its owner and algorithm uncompressed; nil when there is none.
	TSIG []byte
	// TSIGError is what an error response says of the signature: that its key is not
	// known, unless who has keys finds another fault.
	TSIGError uint16
	// tsigRData is where TSIG's RDATA begins in it, tsigFixed where that goes on
	// behind the algorithm's name.
	tsigRData, tsigFixed int
}

// Disposition says what is to be done with a received message.
type Disposition uint8

// The dispositions of ParseQuery. For all but Ignore the Query's ID, Opcode and
// flags are set, so that an error response can be built.
const (
	Ignore      Disposition = iota // no response: too short for a header, or a response itself
	Proceed                        // a well-formed query
	CookieQuery                    // no question, but a cookie to be answered (RFC 7873 section 5.4)
	FormErr
	NotImp
	BadVers // EDNS version above 0 (RFC 6891 section 6.1.3)
	Refuse  // UPDATE and the like
	BadKey  // signed with a key that we don't have, as we have none (RFC 8945 section 5.2.1)
)

// RCode is the response code that answers the disposition; NoError for Ignore,
// Proceed and CookieQuery, which no error answers.
func (d Disposition) RCode() RCode {
	switch d {
	case FormErr:
		return RCodeFormErr
	case NotImp:
		return RCodeNotImp
	case BadVers:
		return RCodeBadVers
	case Refuse:
		return RCodeRefused
	case BadKey:
		return RCodeNotAuth
	case Ignore, Proceed, CookieQuery:
	}
	return RCodeNoError
}

// Header bits, RFC 1035 section 4.1.1 and RFC 4035 section 3.
const (
	flagQR      = 0x8000
	flagAA      = 0x0400
	flagTC      = 0x0200
	flagRD      = 0x0100
	flagRA      = 0x0080
	flagAD      = 0x0020
	flagCD      = 0x0010
	opcodeShift = 11
	opcodeMask  = 0xf
	flagDO      = 0x8000 // in the low half of the OPT record's TTL, RFC 6891 section 6.1.3
	flagCO      = 0x4000 // RFC 9824 section 5.1
)

// ParseQuery reads a message into q.
//
// A message that is not a query of opcode 0 is answered by its header alone
// (RFC 8906 section 3.1.4: nothing is known of its form), with an OPT record if
// one can be found. In a query ANCOUNT must be 0, and NSCOUNT too unless it is
// an IXFR, which brings its SOA (RFC 1995 section 3); nothing may follow the
// last record. Records in the additional section that mean nothing to us,
// SIG(0) among them (RFC 2931), are passed over.
func ParseQuery(msg []byte, q *Query) Disposition {
	if len(msg) < HeaderSize {
		return Ignore
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if flags&flagQR != 0 { // never answer an answer: two servers would not end
		return Ignore
	}
	q.Msg = msg
	q.ID = binary.BigEndian.Uint16(msg)
	q.Opcode = Opcode(flags >> opcodeShift & opcodeMask)
	q.RD, q.CD, q.AD = flags&flagRD != 0, flags&flagCD != 0, flags&flagAD != 0
	q.RawName, q.Type, q.Class = nil, 0, 0
	q.EDNS, q.Version, q.UDPSize, q.DO, q.CO, q.Options, q.Asked, q.TSIG = false, 0, MinPayload, false, false, nil, 0, nil

	if q.Opcode != OpcodeQuery {
		return q.parseOther()
	}
	if binary.BigEndian.Uint16(msg[4:]) != 1 {
		return q.parseOdd()
	}
	end, ok := q.parseQuestion()
	if !ok {
		return FormErr
	}
	if binary.BigEndian.Uint64(msg[4:]) == 1<<48 && end == len(msg) {
		return Proceed // one question and nothing else: no record to read
	}
	if binary.BigEndian.Uint16(msg[6:]) != 0 {
		return FormErr
	}
	if ns := binary.BigEndian.Uint16(msg[8:]); ns > 1 || ns == 1 && q.Type != TypeIXFR {
		return FormErr
	}
	if end = q.parseRecords(end); end != len(msg) {
		return FormErr
	}
	switch {
	case q.Version > 0:
		return BadVers
	case q.TSIG != nil:
		return BadKey
	}
	return Proceed
}

// parseOther finds the OPT record of a message that is no query, and how it is
// answered: what may be meant to change a zone is refused, all else is not
// implemented, NOTIFY among it as no zone here is a secondary (RFC 1996).
func (q *Query) parseOther() Disposition {
	if q.parseRecords(skipQuestions(q.Msg)) != len(q.Msg) {
		q.EDNS = false
	}
	q.TSIG = nil
	if q.Opcode == OpcodeUpdate {
		return Refuse // RFC 2136 section 3.3
	}
	return NotImp
}

// parseOdd is for a query that has not one question, which RFC 9619 has refused
// but for one that has none and asks for a cookie.
func (q *Query) parseOdd() Disposition {
	end := q.parseRecords(skipQuestions(q.Msg))
	const alone = 1 // one record, OPT
	if binary.BigEndian.Uint64(q.Msg[4:]) == alone && end == len(q.Msg) && q.Version == 0 && q.Asked&AskedCookie != 0 {
		return CookieQuery
	}
	return FormErr
}

// parseQuestion reads the one question and returns where it ends. Nothing stands
// before it that its name could point at, so a pointer in it is an error.
func (q *Query) parseQuestion() (end int, ok bool) {
	n := q.Name.read(q.Msg[HeaderSize:])
	end = HeaderSize + n + questionFixed
	if n == 0 || end > len(q.Msg) {
		return 0, false
	}
	q.RawName = q.Msg[HeaderSize : HeaderSize+n]
	fixed := binary.BigEndian.Uint32(q.Msg[HeaderSize+n:])
	q.Type, q.Class = Type(fixed>>16), Class(fixed)
	return end, true
}

// skipQuestions returns where the questions of msg end, or 0.
func skipQuestions(msg []byte) int {
	at := HeaderSize
	for range binary.BigEndian.Uint16(msg[4:]) { // each takes 5 octets or ends the loop
		if at = skipName(msg, at); at == 0 || at+questionFixed > len(msg) {
			return 0
		}
		at += questionFixed
	}
	return at
}

// skipName returns where the name at msg[at:] ends, or 0. Pointers are not
// followed, so there is no loop to fall into.
func skipName(msg []byte, at int) int {
	for start := at; at < len(msg) && at-start < maxName; {
		l := int(msg[at])
		switch {
		case l == 0:
			return at + 1
		case l <= maxLabel:
			at += 1 + l
		case l >= 0xc0 && at+2 <= len(msg):
			return at + 2
		default:
			return 0
		}
	}
	return 0
}

// parseRecords goes through the records that begin at msg[at:], notes the OPT
// and TSIG records, and returns where they end; 0 when they are malformed. Each
// record takes 11 octets or more, so the message's length bounds the loop.
func (q *Query) parseRecords(at int) int {
	if at == 0 {
		return 0
	}
	before := int(binary.BigEndian.Uint16(q.Msg[6:])) + int(binary.BigEndian.Uint16(q.Msg[8:]))
	all := before + int(binary.BigEndian.Uint16(q.Msg[10:]))
	for i := range all {
		owner := at
		if at = skipName(q.Msg, at); at == 0 || at+rrFixed > len(q.Msg) {
			return 0
		}
		fixed := at
		at += rrFixed + int(binary.BigEndian.Uint16(q.Msg[at+8:]))
		if at > len(q.Msg) {
			return 0
		}
		ok := true
		switch Type(binary.BigEndian.Uint16(q.Msg[fixed:])) {
		case TypeOPT:
			ok = i >= before && q.parseOPT(owner, fixed, at)
		case TypeTSIG: // the last of the message, RFC 8945 section 5.1
			ok = i >= before && i == all-1 && q.parseTSIG(owner, fixed, at)
		}
		if !ok {
			return 0
		}
	}
	return at
}

// parseOPT reads the OPT record whose fixed part begins at fixed. There is one
// at most, and its owner is the root (RFC 6891 section 6.1.1).
func (q *Query) parseOPT(owner, fixed, end int) bool {
	if q.EDNS || fixed != owner+1 {
		return false
	}
	q.EDNS = true
	q.UDPSize = max(binary.BigEndian.Uint16(q.Msg[fixed+2:]), MinPayload)
	q.Version = q.Msg[fixed+5]
	flags := binary.BigEndian.Uint16(q.Msg[fixed+6:])
	q.DO = flags&flagDO != 0
	q.CO = flags&flagCO != 0
	if q.Version > 0 { // we don't know its options' form
		return true
	}
	q.Options = q.Msg[fixed+rrFixed : end]
	rest := q.Options
	for len(rest) > 0 {
		code, data, next, ok := cutOption(rest)
		if !ok || !q.option(code, data) {
			q.Options, q.Asked = nil, 0
			return false
		}
		rest = next
	}
	return true
}

// cutOption splits the first option off RDATA of an OPT record.
func cutOption(rdata []byte) (code uint16, data, rest []byte, ok bool) {
	if len(rdata) < 4 {
		return 0, nil, nil, false
	}
	code = binary.BigEndian.Uint16(rdata)
	end := 4 + int(binary.BigEndian.Uint16(rdata[2:]))
	if end > len(rdata) {
		return 0, nil, nil, false
	}
	return code, rdata[4:end:end], rdata[end:], true
}

// parseTSIG notes a TSIG record of the right form (RFC 8945 section 4.2): class
// ANY, TTL 0, and an algorithm's name that is not compressed. We ask the owner,
// the key's name, to be uncompressed too, as every client sends it.
func (q *Query) parseTSIG(owner, fixed, end int) bool {
	msg := q.Msg
	if Class(binary.BigEndian.Uint16(msg[fixed+2:])) != ClassANY || binary.BigEndian.Uint32(msg[fixed+4:]) != 0 {
		return false
	}
	var n Name
	if n.read(msg[owner:]) != fixed-owner {
		return false
	}
	rdata := msg[fixed+rrFixed : end]
	alg := n.read(rdata)
	if alg == 0 || len(rdata) < alg+tsigMinRDataAfterName {
		return false
	}
	mac := int(binary.BigEndian.Uint16(rdata[alg+8:]))
	if len(rdata) < alg+tsigMinRDataAfterName+mac {
		return false
	}
	other := int(binary.BigEndian.Uint16(rdata[alg+14+mac:]))
	if len(rdata) != alg+tsigMinRDataAfterName+mac+other {
		return false
	}
	q.TSIG, q.TSIGError = msg[owner:end], TSIGBadKey
	q.tsigRData, q.tsigFixed = fixed+rrFixed-owner, fixed+rrFixed-owner+alg
	return true
}
