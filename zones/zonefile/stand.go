package zonefile

import (
	"fmt"
	"strings"

	"github.com/musterdns/muster/dnsserver/wire"
)

// stand is a type that the parser does not know, or reads wrongly, and one that it reads in
// its place: of RDATA of the same form, or that carries it. Entries that really have that
// type are told apart by their places.
type stand struct {
	name      string
	typ       wire.Type
	standName string
	standType wire.Type
	form      *form // nil: the same
}

// stands are all of them. MD is a type that nothing uses (RFC 1035 section 3.3.4).
var stands = [...]stand{
	{"ALIAS", wire.TypeALIAS, "MD", wire.TypeMD, nil},
	{"WALLET", wire.TypeWALLET, "TXT", wire.TypeTXT, nil},
	{"CLA", wire.TypeCLA, "TXT", wire.TypeTXT, nil},
	{"WKS", wire.TypeWKS, "HIP", wire.TypeHIP, &wks},
	{"ISDN", wire.TypeISDN, "HIP", wire.TypeHIP, &isdn},
	{"NSAP", wire.TypeNSAP, "HIP", wire.TypeHIP, &nsap},
	{"NXT", wire.TypeNXT, "HIP", wire.TypeHIP, &nxt},
	{"ATMA", wire.TypeATMA, "HIP", wire.TypeHIP, &atma},
	{"A6", wire.TypeA6, "HIP", wire.TypeHIP, &a6},
	{"SINK", wire.TypeSINK, "HIP", wire.TypeHIP, &sink},
	{"DSYNC", wire.TypeDSYNC, "HIP", wire.TypeHIP, &dsync},
	{"HHIT", wire.TypeHHIT, "HIP", wire.TypeHIP, &drip},
	{"BRID", wire.TypeBRID, "HIP", wire.TypeHIP, &drip},
	{"URI", wire.TypeURI, "HIP", wire.TypeHIP, &uri},
	{"DOA", wire.TypeDOA, "HIP", wire.TypeHIP, &doa},
	{"AMTRELAY", wire.TypeAMTRELAY, "HIP", wire.TypeHIP, &amtrelay},
}

// standAhead is how far into an entry its type is looked for, and what the parser does not
// know of it.
const standAhead = 1024

// place is a line of a file.
type place struct {
	file string
	line int
}

// stand looks whether the entry that begins with c, the last octet read, is of a type
// that another stands for, or one that is to be written otherwise, and then has the parser
// read what it knows.
func (in *input) stand(c byte) error {
	ahead, _ := in.Peek(standAhead) // at the end of the file, what there is
	start, end := typeIn(c, ahead)
	name := string(ahead[start:end])
	with := rewriteOf(name, ahead)
	t := standOf(name)
	if t != nil {
		with = t.rewrite
	}
	if with == nil {
		return nil // nearly all
	}
	head, err := in.take(c, end)
	if err != nil {
		return err
	}
	data, err := in.restOfEntry()
	if err != nil {
		return err
	}
	if data, err = with(data); err != nil {
		return fmt.Errorf("bad %s record, %w", strings.ToUpper(name), err)
	}
	in.text = head[:1+start] + data
	if t != nil {
		in.src.stood[place{in.name, in.line}] = t
	}
	return nil
}

// standOf is the stand of a type; nil: the parser knows it.
func standOf(name string) *stand {
	for i := range stands {
		if strings.EqualFold(stands[i].name, name) {
			return &stands[i]
		}
	}
	return nil
}

// rewrite makes the entry that the parser reads.
func (t *stand) rewrite(data string) (string, error) {
	if t.form != nil {
		return t.form.carry(data)
	}
	return t.standName + data, nil
}

// typeIn is where the type stands in an entry that begins with c and goes on with ahead:
// behind an owner or none, TTL and class in either order, and before a blank. It is empty
// where that cannot be told.
func typeIn(c byte, ahead []byte) (start, end int) {
	i := 0
	if !isBlank(c) {
		if isSpecial(c) {
			return 0, 0
		}
		for ; i < len(ahead) && !isBlank(ahead[i]); i++ {
			if isSpecial(ahead[i]) {
				return 0, 0
			}
		}
	}
	for range 3 {
		for i < len(ahead) && isBlank(ahead[i]) {
			i++
		}
		start = i
		for i < len(ahead) && !isBlank(ahead[i]) && !isSpecial(ahead[i]) {
			i++
		}
		switch {
		case i == start || i == len(ahead) || !isBlank(ahead[i]):
			return 0, 0
		case ahead[start] >= '0' && ahead[start] <= '9' || strings.EqualFold(string(ahead[start:i]), "IN"):
		default:
			return start, i
		}
	}
	return 0, 0
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// isSpecial reports whether an octet ends a word, or is none of an owner's.
func isSpecial(c byte) bool { return strings.IndexByte("\r\n;\"()$", c) >= 0 }

// take reads n octets, and returns them behind c, which was read before.
func (in *input) take(c byte, n int) (string, error) {
	text := append(make([]byte, 0, 1+n), c)
	for len(text) <= n { // counted as what it is read from
		c, err := in.readByte()
		if err != nil {
			return "", err
		}
		text = append(text, c)
	}
	return string(text), nil
}
