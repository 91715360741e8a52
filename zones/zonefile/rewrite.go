package zonefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rewriteOf is what makes of the data of an entry, from behind its type to its end, the type
// and data as the parser knows them; nil: it does as they stand. ahead is where they begin.
func rewriteOf(name string, ahead []byte) func(data string) (string, error) {
	switch strings.ToUpper(name) {
	case "LOC":
		return words("LOC", wholeAngles)
	case "NAPTR":
		return words("NAPTR", quotedFlags)
	case "NID":
		return words("NID", wholeGroups)
	case "L64":
		return words("L64", wholeGroups)
	case "DS", "CDS", "DLV", "TA":
		return words(strings.ToUpper(name), numberedDigest)
	case "X25":
		return words("X25", unquoted)
	case "GPOS":
		return words("GPOS", unquoted)
	case "SVCB", "HTTPS":
		if bytes.Contains(ahead, []byte(groupsKey)) {
			return func(data string) (string, error) { return withGroups(strings.ToUpper(name) + data) }
		}
	}
	return nil
}

// restOfEntry reads to the end of the entry or of the file.
func (in *input) restOfEntry() (string, error) {
	var text []byte
	for !in.entry.begins {
		if len(text) == directiveMax {
			return "", fmt.Errorf("an entry of more than %d octets", directiveMax)
		}
		c, err := in.readByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		text = append(text, c)
	}
	return string(text), nil
}

// words changes the words of an entry's data, which have their quotes. What it cannot read it
// leaves, for the parser to tell of it.
func words(typ string, change func([]string)) func(string) (string, error) {
	return func(data string) (string, error) {
		list, ok := wordsOf(data)
		if !ok || slices.Contains(list, `\#`) { // RFC 3597 section 5
			return typ + data, nil
		}
		change(list)
		return typ + " " + strings.Join(list, " ") + "\n", nil
	}
}

// wordsOf are the words of an entry's data, without comments and what holds lines together;
// not ok: that, or a quotation, is not whole.
func wordsOf(data string) (list []string, ok bool) {
	var word []byte
	var e entry
	for i := range len(data) {
		before := e
		e.next(data[i])
		switch {
		case e.comment || !e.quoted && !before.escaped && strings.IndexByte(" \t\r\n()", data[i]) >= 0:
			if data[i] == ')' && !e.comment && before.open == 0 {
				return nil, false
			}
			if len(word) > 0 {
				list = append(list, string(word))
			}
			word = word[:0]
		default:
			word = append(word, data[i])
		}
	}
	if len(word) > 0 {
		list = append(list, string(word))
	}
	return list, e.open == 0 && !e.quoted
}

// wholeAngles gives the latitude and the longitude of a LOC record the minutes and seconds
// that may be left out (RFC 1876 section 3).
func wholeAngles(list []string) {
	at := 0
	for _, ends := range []string{"NS", "EW"} {
		end := slices.IndexFunc(list[at:], func(w string) bool { return len(w) == 1 && strings.Contains(ends, strings.ToUpper(w)) })
		if end < 1 || end > 3 {
			return
		}
		list[at] += strings.Repeat(" 0", 3-end) // behind the degrees or the minutes
		if end == 2 {
			list[at], list[at+1] = strings.TrimSuffix(list[at], " 0"), list[at+1]+" 0"
		}
		at += end + 1
	}
}

// quotedFlags puts the character-strings of a NAPTR record in quotes, which need them as
// little as others (RFC 1035 section 5.1).
func quotedFlags(list []string) {
	for i := 2; i < min(len(list), 5); i++ {
		if !strings.HasPrefix(list[i], `"`) {
			list[i] = `"` + list[i] + `"`
		}
	}
}

// wholeGroups gives the groups of an identifier or locator the zeros that may be left out
// (RFC 6742 sections 2.1.2 and 2.3.2).
func wholeGroups(list []string) {
	if len(list) < 2 {
		return
	}
	groups := strings.Split(list[1], ":")
	for i, g := range groups {
		if len(g) > 0 && len(g) < 4 {
			groups[i] = strings.Repeat("0", 4-len(g)) + g
		}
	}
	list[1] = strings.Join(groups, ":")
}

// numberedDigest has a digest type as the number that it is (RFC 4034 section 5.3), and not
// as the name by which BIND knows it too.
func numberedDigest(list []string) {
	if len(list) > 2 {
		list[2] = strings.NewReplacer("SHA-1", "1", "SHA-256", "2", "SHA-384", "4").Replace(strings.ToUpper(list[2]))
	}
}

// unquoted takes the quotes off character-strings of digits.
func unquoted(list []string) {
	for i, w := range list {
		if len(w) > 2 && w[0] == '"' && w[len(w)-1] == '"' && !strings.ContainsAny(w, " \t\\") {
			list[i] = w[1 : len(w)-1]
		}
	}
}

// groupsKey is the parameter of a service binding that tells what groups for key exchange
// the server knows (draft-ietf-tls-key-share-prediction), which has the number 9.
const groupsKey = "tls-supported-groups"

// groups are the places where it stands: what is before it, and its value or that it has
// none, as in a list of keys that are mandatory.
var groups = regexp.MustCompile(`([\s("=,])` + groupsKey + `\b(=("[^"]*"|[^\s")]*))?`)

// withGroups writes the parameter as a key without a name (RFC 9460 section 2.1).
func withGroups(entry string) (text string, err error) {
	text = groups.ReplaceAllStringFunc(entry, func(s string) string {
		m := groups.FindStringSubmatch(s)
		if m[2] == "" {
			return m[1] + "key9"
		}
		value := &strings.Builder{}
		for group := range strings.SplitSeq(strings.Trim(m[3], `"`), ",") {
			n, parseErr := strconv.ParseUint(group, 10, 16)
			if parseErr != nil {
				err = fmt.Errorf("%s: %.64q is no list of numbers from 0 to 65535 with commas between", groupsKey, m[3])
				return s
			}
			fmt.Fprintf(value, `\%03d\%03d`, n>>8, n&0xff)
		}
		return m[1] + `key9="` + value.String() + `"`
	})
	return text, err
}
