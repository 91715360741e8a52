// Package wire parses queries and builds responses (RFC 1035, RFC 6891) for
// the query path: no allocation, standard library only.
//
// A server parses with ParseQuery into a Query that it keeps for the purpose,
// and answers with a Builder that it keeps too: Start, records, Finish. What
// ParseQuery does not let proceed is answered by Start and Fail, the one place
// where error responses are made, whatever the transport.
//
// Names are held in wire form, uncompressed: ParseName reads the form that
// people write. Only names that RFC 3597 section 4 allows are compressed.
package wire

import (
	"strconv"
	"strings"
)

// The numbers of RFC 6895.
type (
	// Type is an RR type.
	Type uint16
	// Class is a class.
	Class uint16
	// RCode is a response code, with the bits that EDNS adds.
	RCode uint16
	// Opcode is an opcode.
	Opcode uint8
)

// Section is a section of a message that records go to, in message order.
type Section uint8

// The sections of records.
const (
	Answer Section = iota
	Authority
	Additional
)

// Sizes in octets.
const (
	HeaderSize    = 12    // RFC 1035 section 4.1.1
	MinPayload    = 512   // what every client takes over UDP, RFC 1035 section 2.3.4
	MaxPayload    = 1232  // what we send and offer over UDP: no fragments on any IPv6 path
	MaxMessage    = 65535 // the most a stream's length prefix can say, RFC 1035 section 4.2.2
	maxName       = 255   // RFC 1035 section 2.3.4
	maxLabel      = 63
	questionFixed = 4 // QTYPE and QCLASS
	rrFixed       = 10
	optFixed      = 11 // root owner and the fixed part of the OPT record
)

// The classes.
const (
	ClassIN   Class = 1
	ClassCH   Class = 3
	ClassNONE Class = 254
	ClassANY  Class = 255
)

// The opcodes.
const (
	OpcodeQuery  Opcode = 0
	OpcodeIQuery Opcode = 1
	OpcodeStatus Opcode = 2
	OpcodeNotify Opcode = 4
	OpcodeUpdate Opcode = 5
)

// The response codes (RFC 6895 section 2.3).
const (
	RCodeNoError   RCode = 0
	RCodeFormErr   RCode = 1
	RCodeServFail  RCode = 2
	RCodeNXDomain  RCode = 3
	RCodeNotImp    RCode = 4
	RCodeRefused   RCode = 5
	RCodeYXDomain  RCode = 6
	RCodeNotAuth   RCode = 9
	RCodeBadVers   RCode = 16
	RCodeBadCookie RCode = 23 // RFC 7873 section 8
)

// The extended DNS errors (RFC 8914 section 4) that Muster sends.
const (
	EDEOther              uint16 = 0
	EDEStale              uint16 = 3
	EDENotReady           uint16 = 14
	EDEProhibited         uint16 = 18
	EDEStaleNXDomain      uint16 = 19
	EDENotAuthoritative   uint16 = 20
	EDENotSupported       uint16 = 21
	EDENoReachable        uint16 = 22
	EDENetworkError       uint16 = 23
	maxEDETextOctets             = 64
	tsigMinRDataAfterName        = 16 // time, fudge, MAC size, id, error, other length
)

// Errors of transaction signatures (RFC 8945 section 3).
const (
	TSIGBadSig   uint16 = 16
	TSIGBadKey   uint16 = 17
	TSIGBadTime  uint16 = 18
	TSIGBadTrunc uint16 = 22
)

// The types that have a name here; others are written TYPE123 (RFC 3597
// section 5).
const (
	TypeA          Type = 1
	TypeNS         Type = 2
	TypeMD         Type = 3
	TypeMF         Type = 4
	TypeCNAME      Type = 5
	TypeSOA        Type = 6
	TypeMB         Type = 7
	TypeMG         Type = 8
	TypeMR         Type = 9
	TypeNULL       Type = 10
	TypeWKS        Type = 11
	TypePTR        Type = 12
	TypeHINFO      Type = 13
	TypeMINFO      Type = 14
	TypeMX         Type = 15
	TypeTXT        Type = 16
	TypeRP         Type = 17
	TypeAFSDB      Type = 18
	TypeX25        Type = 19
	TypeISDN       Type = 20
	TypeRT         Type = 21
	TypeNSAP       Type = 22
	TypeNSAPPTR    Type = 23
	TypeSIG        Type = 24
	TypeKEY        Type = 25
	TypePX         Type = 26
	TypeGPOS       Type = 27
	TypeAAAA       Type = 28
	TypeLOC        Type = 29
	TypeNXT        Type = 30
	TypeEID        Type = 31
	TypeNIMLOC     Type = 32
	TypeSRV        Type = 33
	TypeATMA       Type = 34
	TypeNAPTR      Type = 35
	TypeKX         Type = 36
	TypeCERT       Type = 37
	TypeA6         Type = 38
	TypeDNAME      Type = 39
	TypeSINK       Type = 40
	TypeOPT        Type = 41
	TypeAPL        Type = 42
	TypeDS         Type = 43
	TypeSSHFP      Type = 44
	TypeIPSECKEY   Type = 45
	TypeRRSIG      Type = 46
	TypeNSEC       Type = 47
	TypeDNSKEY     Type = 48
	TypeDHCID      Type = 49
	TypeNSEC3      Type = 50
	TypeNSEC3PARAM Type = 51
	TypeTLSA       Type = 52
	TypeSMIMEA     Type = 53
	TypeHIP        Type = 55
	TypeNINFO      Type = 56
	TypeRKEY       Type = 57
	TypeTALINK     Type = 58
	TypeCDS        Type = 59
	TypeCDNSKEY    Type = 60
	TypeOPENPGPKEY Type = 61
	TypeCSYNC      Type = 62
	TypeZONEMD     Type = 63
	TypeSVCB       Type = 64
	TypeHTTPS      Type = 65
	TypeDSYNC      Type = 66
	TypeHHIT       Type = 67
	TypeBRID       Type = 68
	TypeSPF        Type = 99
	TypeUINFO      Type = 100
	TypeUID        Type = 101
	TypeGID        Type = 102
	TypeUNSPEC     Type = 103
	TypeNID        Type = 104
	TypeL32        Type = 105
	TypeL64        Type = 106
	TypeLP         Type = 107
	TypeEUI48      Type = 108
	TypeEUI64      Type = 109
	TypeNXNAME     Type = 128
	TypeTKEY       Type = 249
	TypeTSIG       Type = 250
	TypeIXFR       Type = 251
	TypeAXFR       Type = 252
	TypeMAILB      Type = 253
	TypeMAILA      Type = 254
	TypeANY        Type = 255
	TypeURI        Type = 256
	TypeCAA        Type = 257
	TypeAVC        Type = 258
	TypeDOA        Type = 259
	TypeAMTRELAY   Type = 260
	TypeRESINFO    Type = 261
	TypeWALLET     Type = 262
	TypeCLA        Type = 263
	TypeTA         Type = 32768
	TypeDLV        Type = 32769

	// TypeALIAS is of private use (RFC 6895 section 3.1), with the number that
	// PowerDNS gave it: in a zone file, a name whose addresses are those of
	// another. It never goes over the wire.
	TypeALIAS Type = 65401
)

// typeNames is the mnemonic of each type above.
var typeNames = map[Type]string{
	TypeA: "A", TypeNS: "NS", TypeMD: "MD", TypeMF: "MF", TypeCNAME: "CNAME", TypeSOA: "SOA", TypeMB: "MB",
	TypeMG: "MG", TypeMR: "MR", TypeNULL: "NULL", TypeWKS: "WKS", TypePTR: "PTR", TypeHINFO: "HINFO",
	TypeMINFO: "MINFO", TypeMX: "MX", TypeTXT: "TXT", TypeRP: "RP", TypeAFSDB: "AFSDB", TypeX25: "X25",
	TypeISDN: "ISDN", TypeRT: "RT", TypeNSAP: "NSAP", TypeNSAPPTR: "NSAP-PTR", TypeSIG: "SIG", TypeKEY: "KEY",
	TypePX: "PX", TypeGPOS: "GPOS", TypeAAAA: "AAAA", TypeLOC: "LOC", TypeNXT: "NXT", TypeEID: "EID",
	TypeNIMLOC: "NIMLOC", TypeSRV: "SRV", TypeATMA: "ATMA", TypeNAPTR: "NAPTR", TypeKX: "KX", TypeCERT: "CERT",
	TypeA6: "A6", TypeDNAME: "DNAME", TypeSINK: "SINK", TypeOPT: "OPT", TypeAPL: "APL", TypeDS: "DS",
	TypeSSHFP: "SSHFP", TypeIPSECKEY: "IPSECKEY", TypeRRSIG: "RRSIG", TypeNSEC: "NSEC", TypeDNSKEY: "DNSKEY",
	TypeDHCID: "DHCID", TypeNSEC3: "NSEC3", TypeNSEC3PARAM: "NSEC3PARAM", TypeTLSA: "TLSA",
	TypeSMIMEA: "SMIMEA", TypeHIP: "HIP", TypeNINFO: "NINFO", TypeRKEY: "RKEY", TypeTALINK: "TALINK",
	TypeCDS: "CDS", TypeCDNSKEY: "CDNSKEY", TypeOPENPGPKEY: "OPENPGPKEY", TypeCSYNC: "CSYNC",
	TypeZONEMD: "ZONEMD", TypeSVCB: "SVCB", TypeHTTPS: "HTTPS", TypeDSYNC: "DSYNC", TypeHHIT: "HHIT",
	TypeBRID: "BRID", TypeSPF: "SPF", TypeUINFO: "UINFO", TypeUID: "UID", TypeGID: "GID", TypeUNSPEC: "UNSPEC",
	TypeNID: "NID", TypeL32: "L32", TypeL64: "L64", TypeLP: "LP", TypeEUI48: "EUI48", TypeEUI64: "EUI64",
	TypeNXNAME: "NXNAME", TypeTKEY: "TKEY", TypeTSIG: "TSIG", TypeIXFR: "IXFR", TypeAXFR: "AXFR",
	TypeMAILB: "MAILB", TypeMAILA: "MAILA", TypeANY: "ANY", TypeURI: "URI", TypeCAA: "CAA", TypeAVC: "AVC",
	TypeDOA: "DOA", TypeAMTRELAY: "AMTRELAY", TypeRESINFO: "RESINFO", TypeWALLET: "WALLET", TypeCLA: "CLA",
	TypeTA: "TA", TypeDLV: "DLV", TypeALIAS: "ALIAS",
}

// String is the mnemonic, or TYPE123 for a type without one.
func (t Type) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// ParseType is the type of a mnemonic or of TYPE123, in letters of either case.
func ParseType(s string) (Type, bool) {
	s = strings.ToUpper(s)
	for t, name := range typeNames {
		if name == s {
			return t, true
		}
	}
	digits, ok := strings.CutPrefix(s, "TYPE")
	n, err := strconv.ParseUint(digits, 10, 16)
	return Type(n), ok && err == nil
}

// String is the mnemonic, or CLASS123 for a class without one.
func (c Class) String() string {
	switch c {
	case ClassIN:
		return "IN"
	case ClassCH:
		return "CH"
	case ClassNONE:
		return "NONE"
	case ClassANY:
		return "ANY"
	}
	return "CLASS" + strconv.Itoa(int(c))
}

// rcodeNames is the mnemonic of each response code above.
var rcodeNames = map[RCode]string{
	RCodeNoError: "NOERROR", RCodeFormErr: "FORMERR", RCodeServFail: "SERVFAIL",
	RCodeNXDomain: "NXDOMAIN", RCodeNotImp: "NOTIMP", RCodeRefused: "REFUSED",
	RCodeYXDomain: "YXDOMAIN", RCodeNotAuth: "NOTAUTH", RCodeBadVers: "BADVERS", RCodeBadCookie: "BADCOOKIE",
}

// String is the mnemonic, or RCODE123 for a code without one.
func (c RCode) String() string {
	if s, ok := rcodeNames[c]; ok {
		return s
	}
	return "RCODE" + strconv.Itoa(int(c))
}
