package zonefile

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/musterdns/muster/dnsserver/wire"
)

// form is how data is written that the parser does not know, or reads wrongly.
type form struct {
	text string // what it is, for messages
	// octets makes RDATA of the words of an entry, in their quotes; names, of which the parser
	// knows the origin, stand before or behind them. Not ok: they are not of this form.
	octets    func(words []string) (octets []byte, names []string, ok bool)
	nameFirst bool
}

// carriedMax leaves the room of 16 bits of length that carry and a name need.
const carriedMax = 1<<16 - 1 - 6 - 255

// errSize is data in the form for every type whose octets are not as many as it says.
var errSize = errors.New(`\# must have a length and that many pairs of hexadecimal digits behind it (RFC 3597 section 5)`)

// carry writes an entry's data as what the parser reads, for carried to take out again: the
// public key of a HIP record (RFC 8005 section 5), with the names as its servers.
func (f *form) carry(data string) (string, error) {
	words, whole := wordsOf(data)
	if !whole {
		return "", fmt.Errorf("a parenthesis or quotation mark that is not closed: %w", errForm(f, words))
	}
	octets, err := unknown(words)
	var names []string
	if errors.Is(err, errors.ErrUnsupported) {
		var ok bool
		if octets, names, ok = f.octets(words); !ok {
			return "", errForm(f, words)
		}
	} else if err != nil {
		return "", err
	}
	if len(octets) > carriedMax {
		return "", fmt.Errorf("data of %d octets: at most %d are read in this form", len(octets), carriedMax)
	}
	return "HIP 0 00 " + base64.StdEncoding.EncodeToString(append([]byte{0}, octets...)) + " " + strings.Join(names, " ") + "\n", nil
}

// carried is the data that carry wrote.
func (f *form) carried(hip []byte) []byte {
	const before = 4 + 1 // lengths and algorithm, and a tag of one octet
	end := before + int(binary.BigEndian.Uint16(hip[2:]))
	octets, names := hip[before+1:end], hip[end:]
	if f.nameFirst {
		return slices.Concat(names, octets)
	}
	return slices.Concat(octets, names)
}

func errForm(f *form, words []string) error {
	return fmt.Errorf("%.64q: must be %s", strings.Join(words, " "), f.text)
}

// unknown reads the form that every type may have (RFC 3597 section 5).
func unknown(words []string) (octets []byte, err error) {
	if len(words) == 0 || words[0] != `\#` {
		return nil, errors.ErrUnsupported
	}
	if len(words) < 2 {
		return nil, errSize
	}
	size, err := strconv.ParseUint(words[1], 10, 16)
	octets, hexErr := hex.DecodeString(strings.Join(words[2:], ""))
	if err != nil || hexErr != nil || uint64(len(octets)) != size {
		return nil, errSize
	}
	return octets, nil
}

// number reads a word that is at most limit.
func number(word string, limit uint64) (uint64, bool) {
	n, err := strconv.ParseUint(word, 10, 64)
	return n, err == nil && n <= limit
}

// small reads words that are numbers of one octet each.
func small(words ...string) (octets []byte, ok bool) {
	for _, w := range words {
		n, ok := number(w, 255)
		if !ok {
			return nil, false
		}
		octets = append(octets, byte(n))
	}
	return octets, true
}

// based reads base64, which may have blanks within.
func based(octets []byte, words []string) ([]byte, []string, bool) {
	data, err := base64.StdEncoding.DecodeString(strings.Join(words, ""))
	return append(octets, data...), nil, err == nil
}

// text reads a character-string (RFC 1035 section 5.1), of any length.
func text(word string) (octets []byte, ok bool) {
	if len(word) > 1 && word[0] == '"' && word[len(word)-1] == '"' {
		word = word[1 : len(word)-1]
	}
	for i := 0; i < len(word); i++ {
		c := word[i]
		if c == '\\' {
			if i++; i == len(word) {
				return nil, false
			}
			if c = word[i]; c >= '0' && c <= '9' {
				if i+3 > len(word) {
					return nil, false
				}
				n, ok := number(word[i:i+3], 255)
				if !ok {
					return nil, false
				}
				c, i = byte(n), i+2
			}
		}
		octets = append(octets, c)
	}
	return octets, true
}

// appendText adds a character-string behind its length.
func appendText(octets []byte, word string) ([]byte, bool) {
	s, ok := text(word)
	if !ok || len(s) > 255 {
		return nil, false
	}
	return append(append(octets, byte(len(s))), s...), true
}

var nsap = form{
	text: "0x and pairs of hexadecimal digits, with dots between (RFC 1706 section 5)",
	octets: func(words []string) ([]byte, []string, bool) {
		digits, ok := strings.CutPrefix(strings.ToLower(strings.Join(words, "")), "0x")
		octets, err := hex.DecodeString(strings.ReplaceAll(digits, ".", ""))
		return octets, nil, ok && err == nil && len(octets) > 0
	},
}

// services are the names of ports that zone files have in WKS records.
var services = map[string]uint64{
	"echo": 7, "discard": 9, "systat": 11, "daytime": 13, "netstat": 15, "chargen": 19, "ftp-data": 20, "ftp": 21, "ssh": 22,
	"telnet": 23, "smtp": 25, "time": 37, "nameserver": 42, "whois": 43, "domain": 53, "bootps": 67, "bootpc": 68, "tftp": 69,
	"gopher": 70, "finger": 79, "http": 80, "hostname": 101, "pop2": 109, "pop3": 110, "sunrpc": 111, "auth": 113, "nntp": 119,
	"ntp": 123, "imap2": 143, "imap": 143, "snmp": 161, "https": 443,
}

var wks = form{
	text: "an IPv4 address, tcp, udp or a protocol's number, and ports (RFC 1035 section 3.4.2), those without a usual name as numbers",
	octets: func(words []string) ([]byte, []string, bool) {
		if len(words) < 2 {
			return nil, nil, false
		}
		addr, err := netip.ParseAddr(words[0])
		protocol, ok := map[string]uint64{"tcp": 6, "udp": 17}[strings.ToLower(words[1])]
		if !ok {
			protocol, ok = number(words[1], 255)
		}
		if err != nil || !addr.Is4() || !ok {
			return nil, nil, false
		}
		octets, head := append(addr.AsSlice(), byte(protocol)), 5
		for _, w := range words[2:] {
			port, ok := services[strings.ToLower(w)]
			if !ok {
				if port, ok = number(w, 65535); !ok {
					return nil, nil, false
				}
			}
			at := head + int(port/8)
			octets = append(octets, make([]byte, max(0, at+1-len(octets)))...)
			octets[at] |= 0x80 >> (port % 8)
		}
		return octets, nil, true
	},
}

var isdn = form{
	text: "an address and perhaps a subaddress (RFC 1183 section 3.2)",
	octets: func(words []string) (octets []byte, _ []string, ok bool) {
		for _, w := range words {
			if octets, ok = appendText(octets, w); !ok {
				return nil, nil, false
			}
		}
		return octets, nil, len(words) == 1 || len(words) == 2
	},
}

// nxt has a bit for each of the types below 128, in one map (RFC 2535 section 5.2).
var nxt = form{
	text:      "the next name and types below 128 (RFC 2535 section 5.3)",
	nameFirst: true,
	octets: func(words []string) (bits []byte, _ []string, ok bool) {
		for _, w := range words[min(1, len(words)):] {
			t, ok := wire.ParseType(w)
			if !ok || t >= 128 {
				return nil, nil, false
			}
			bits = append(bits, make([]byte, max(0, int(t/8)+1-len(bits)))...)
			bits[t/8] |= 0x80 >> (t % 8)
		}
		return bits, words[:min(1, len(words))], len(words) > 0
	},
}

var atma = form{
	text: "+ and a number of E.164, or hexadecimal digits (af-saa-0069), dots within",
	octets: func(words []string) ([]byte, []string, bool) {
		if len(words) != 1 {
			return nil, nil, false
		}
		digits, e164 := strings.CutPrefix(strings.ReplaceAll(words[0], ".", ""), "+")
		if e164 {
			return append([]byte{1}, digits...), nil, digits != "" && strings.Trim(digits, "0123456789") == ""
		}
		octets, err := hex.DecodeString(digits)
		return append([]byte{0}, octets...), nil, err == nil && len(octets) > 0
	},
}

var a6 = form{
	text: "a prefix's length, the rest of the address if that is less than 128, and a name if it is more than 0 (RFC 2874 section 3.2)",
	octets: func(words []string) ([]byte, []string, bool) {
		if len(words) == 0 {
			return nil, nil, false
		}
		prefix, ok := number(words[0], 128)
		octets, rest := []byte{byte(prefix)}, words[1:]
		if ok && prefix < 128 {
			if len(rest) == 0 {
				return nil, nil, false
			}
			addr, err := netip.ParseAddr(rest[0])
			if err != nil || !addr.Is6() || addr.Zone() != "" {
				return nil, nil, false
			}
			suffix := addr.AsSlice()[prefix/8:]
			suffix[0] &= 0xff >> (prefix % 8)
			octets, rest = append(octets, suffix...), rest[1:]
		}
		return octets, rest, ok && len(rest) == int(min(1, prefix))
	},
}

var sink = form{
	text: "coding, subcoding and format as numbers, and base64 (draft-eastlake-kitchen-sink)",
	octets: func(words []string) ([]byte, []string, bool) {
		if len(words) < 3 {
			return nil, nil, false
		}
		octets, ok := small(words[:3]...)
		if !ok {
			return nil, nil, false
		}
		return based(octets, words[3:])
	},
}

var dsync = form{
	text: "a type, NOTIFY or a scheme's number, a port and a name (RFC 9859 section 2.2)",
	octets: func(words []string) ([]byte, []string, bool) {
		if len(words) != 4 {
			return nil, nil, false
		}
		typ, typOK := wire.ParseType(words[0])
		if n, ok := number(words[0], 65535); ok { // as BIND has it too
			typ, typOK = wire.Type(n), true
		}
		scheme, ok := number(words[1], 255)
		if strings.EqualFold(words[1], "NOTIFY") {
			scheme, ok = 1, true
		}
		port, portOK := number(words[2], 65535)
		octets := append(binary.BigEndian.AppendUint16(nil, uint16(typ)), byte(scheme))
		return binary.BigEndian.AppendUint16(octets, uint16(port)), words[3:], typOK && ok && portOK
	},
}

// drip is that of HHIT and BRID.
var drip = form{
	text: "base64 (RFC 9886)",
	octets: func(words []string) ([]byte, []string, bool) {
		octets, _, ok := based(nil, words)
		return octets, nil, ok && len(octets) > 0
	},
}

// uri has a target that is longer than a character-string.
var uri = form{
	text: "priority, weight and a target in quotes (RFC 7553 section 4.5)",
	octets: func(words []string) (octets []byte, _ []string, ok bool) {
		if len(words) != 3 || !strings.HasPrefix(words[2], `"`) {
			return nil, nil, false
		}
		for _, w := range words[:2] {
			n, ok := number(w, 65535)
			if !ok {
				return nil, nil, false
			}
			octets = binary.BigEndian.AppendUint16(octets, uint16(n))
		}
		target, ok := text(words[2])
		return append(octets, target...), nil, ok
	},
}

var doa = form{
	text: "enterprise, type and location as numbers, a media type, and base64 or - (draft-durand-doa-over-dns)",
	octets: func(words []string) (octets []byte, _ []string, ok bool) {
		if len(words) < 5 {
			return nil, nil, false
		}
		for _, w := range words[:2] {
			n, ok := number(w, 1<<32-1)
			if !ok {
				return nil, nil, false
			}
			octets = binary.BigEndian.AppendUint32(octets, uint32(n))
		}
		location, ok := number(words[2], 255)
		if !ok {
			return nil, nil, false
		}
		if octets, ok = appendText(append(octets, byte(location)), words[3]); !ok {
			return nil, nil, false
		}
		if words[4] == "-" {
			return octets, nil, len(words) == 5
		}
		return based(octets, words[4:])
	},
}

var amtrelay = form{
	text: "precedence, 0 or 1, a relay's type from 0 to 3, and none, an address of that type or a name (RFC 8777 section 4.3)",
	octets: func(words []string) ([]byte, []string, bool) {
		if len(words) != 4 {
			return nil, nil, false
		}
		octets, ok := small(words[:3]...)
		if !ok || octets[1] > 1 || octets[2] > 3 {
			return nil, nil, false
		}
		typ, relay := octets[2], words[3]
		octets = []byte{octets[0], octets[1]<<7 | typ}
		switch typ {
		case 0:
			return octets, nil, relay == "."
		case 3:
			return octets, words[3:], true
		}
		addr, err := netip.ParseAddr(relay)
		return append(octets, addr.AsSlice()...), nil, err == nil && addr.Zone() == "" && addr.Is4() == (typ == 1)
	},
}
