package registry

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	labelMax = 63  // RFC 1035 section 2.3.4
	nameMax  = 253 // a name's text form without the final dot (RFC 1035 section 2.3.4)
)

const labelMend = "use letters, digits and hyphens, at most 63, no hyphen at either end"

// FoldLabel returns a label in lower case, or an error when it is none:
// letters, digits and inner hyphens, 1 to 63 (RFC 1123 section 2.1). Instance
// ids and the names of ports are labels.
func FoldLabel(s string) (string, error) {
	if !isLabel(s) {
		return "", bad("", s, "is not a DNS label", labelMend)
	}
	return lower(s), nil
}

// FoldService returns a service's name in lower case, or an error when it is
// none: one or more labels with dots between them, 253 octets at most. Any
// longer instance name could not be asked for.
func FoldService(s string) (string, error) {
	if err := checkName(s); err != nil {
		return "", err
	}
	return lower(s), nil
}

// checkName says whether s is labels with dots between them.
func checkName(s string) error {
	if len(s) > nameMax {
		return bad("", s, "is longer than 253 octets", "use a shorter name")
	}
	for rest, more := s, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		if !isLabel(label) {
			return bad("", s, "is not a name of DNS labels", labelMend)
		}
	}
	return nil
}

// checkDomain says whether s is a domain name that a question can have: labels
// that may begin with or hold underscores (RFC 8552), with or without the dot
// at the end.
func checkDomain(s string) error {
	name := strings.TrimSuffix(s, ".")
	if name == "" || len(name) > nameMax {
		return bad("", s, "is not a domain name", "use 1 to 253 octets, as web.svc.internal.")
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(strings.ReplaceAll(label, "_", "x")) {
			return bad("", s, "is not a domain name", labelMend)
		}
	}
	return nil
}

// isLabel reports whether s is letters, digits and inner hyphens, 1 to 63.
func isLabel(s string) bool {
	if s == "" || len(s) > labelMax || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// lower folds ASCII letters, as DNS does (RFC 4343 section 3); a name that is
// folded already is returned as it is.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return foldASCII(s)
		}
	}
	return s
}

func foldASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + ('a' - 'A')
		}
	}
	return string(b)
}

// checkText says whether s may be kept and shown: UTF-8 without control
// characters, so that no record can forge a line in a log or on a terminal,
// and of a bounded size.
func checkText(s string, sizeMax int) error {
	if len(s) > sizeMax {
		return bad("", s, "is too long", "use a shorter text")
	}
	ascii := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			ascii = false
			break
		}
	}
	if ascii {
		return nil
	}
	if !utf8.ValidString(s) {
		return bad("", s, "is not UTF-8", "write it as UTF-8")
	}
	for _, r := range s {
		// Besides control characters, the two line separators of Unicode and
		// the format characters, which can turn the direction of what follows.
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Cf) {
			return bad("", s, "holds a control character", "take it out")
		}
	}
	return nil
}
