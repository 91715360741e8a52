package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/musterdns/muster/dnsserver/wire"
	"github.com/musterdns/muster/registry"
)

// value is a type of scalar: how its text is read, and what is said of it in
// the reference and the JSON schema.
type value[T any] struct {
	noun   string // "a duration": completes "must be"
	limits string // "100ms to 1h"; empty: none
	// parse reads a scalar's text. Its error completes `key: "text": `.
	parse  func(text string) (T, error)
	schema map[string]any
	// resolve, when set, completes what was read with the directory that
	// relative paths begin at.
	resolve func(base string, x T) T
}

// text is a string of at most 255 octets without control characters.
func text() value[string] {
	return value[string]{noun: "a string", schema: map[string]any{"type": "string"}, parse: func(s string) (string, error) {
		if len(s) > 255 {
			return "", errors.New("must be at most 255 octets long")
		}
		if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
			return "", errors.New("must not hold control characters")
		}
		return s, nil
	}}
}

// argument is a word of a command: text as long as a path may be.
func argument() value[string] {
	v := text()
	v.parse = func(s string) (string, error) {
		if len(s) > registry.PathMax {
			return "", fmt.Errorf("must be at most %d octets long", registry.PathMax)
		}
		if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
			return "", errors.New("must not hold control characters")
		}
		return s, nil
	}
	return v
}

// file is a path, given absolute. A relative one begins at the directory of
// the configuration file, or the working directory when it stands elsewhere.
// Empty, and the word given, stay as they are.
func file(word string) value[string] {
	v := text()
	v.noun = "a path"
	v.resolve = func(base, path string) string {
		if path == "" || path == word || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(base, path)
	}
	return v
}

func boolean() value[bool] {
	return value[bool]{noun: "true or false", schema: map[string]any{"type": "boolean"}, parse: func(s string) (bool, error) {
		switch s {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return false, errors.New("must be true or false")
	}}
}

func integer(low, high int) value[int] {
	limits := fmt.Sprintf("%d to %d", low, high)
	return value[int]{
		noun: "a whole number", limits: limits,
		schema: map[string]any{"type": "integer", "minimum": low, "maximum": high},
		parse: func(s string) (int, error) {
			n, err := strconv.Atoi(s)
			if err != nil || n < low || n > high {
				return 0, fmt.Errorf("must be a whole number, %s", limits)
			}
			return n, nil
		},
	}
}

func fraction() value[float64] { return number(0, 1) }

// number is a number between low and high.
func number(low, high float64) value[float64] {
	limits := fmt.Sprintf("%g to %g", low, high)
	return value[float64]{
		noun: "a number", limits: limits,
		schema: map[string]any{"type": "number", "minimum": low, "maximum": high},
		parse: func(s string) (float64, error) {
			f, err := strconv.ParseFloat(s, 64)
			if err != nil || !(f >= low && f <= high) {
				return 0, errors.New("must be a number, " + limits)
			}
			return f, nil
		},
	}
}

// duration is a time between low and high; zero, where it is not between
// them, is accepted when zero says what it means.
func duration(low, high time.Duration, zero string) value[time.Duration] {
	limits := fmt.Sprintf("%s to %s", short(low), short(high))
	if zero != "" {
		limits += ", or 0s: " + zero
	}
	return value[time.Duration]{
		noun: "a duration", limits: limits,
		schema: map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$|^0$`},
		parse: func(s string) (time.Duration, error) {
			d, err := time.ParseDuration(s)
			if err != nil {
				if _, numErr := strconv.ParseFloat(s, 64); numErr == nil {
					return 0, fmt.Errorf("needs a unit: write %ss for seconds", s)
				}
				return 0, errors.New("must be a duration such as 500ms, 5s or 2m")
			}
			if d == 0 && zero != "" {
				return 0, nil
			}
			if d < low || d > high {
				return 0, fmt.Errorf("must be %s", limits)
			}
			return d, nil
		},
	}
}

// short is d without the zeros that String leaves at its end: "1h", not
// "1h0m0s".
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// oneOf is a word out of a few.
func oneOf[T ~string](words ...T) value[T] {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = string(w)
	}
	list := strings.Join(all, ", ")
	return value[T]{noun: "one of " + list, schema: map[string]any{"enum": all}, parse: func(s string) (T, error) {
		if slices.Contains(all, s) {
			return T(s), nil
		}
		if hint := Suggest(s, all); hint != "" {
			return "", fmt.Errorf("must be one of %s: %s", list, hint)
		}
		return "", fmt.Errorf("must be one of %s", list)
	}}
}

// address is an IP address with a port; a missing port is port, where that is
// not 0.
func address(port uint16) value[netip.AddrPort] {
	example := "127.0.0.1:5300 or [::1]:5300"
	if port != 0 {
		example = "9.9.9.9 or 9.9.9.9:53"
	}
	return value[netip.AddrPort]{
		noun: "an IP address and port", schema: map[string]any{"type": "string"},
		parse: func(s string) (netip.AddrPort, error) {
			if a, err := netip.ParseAddr(s); err == nil && port != 0 {
				return netip.AddrPortFrom(a.Unmap(), port), nil
			}
			if rest, ok := strings.CutPrefix(s, ":"); ok && !strings.Contains(rest, ":") {
				return netip.AddrPort{}, fmt.Errorf("needs an address: write 0.0.0.0:%s for all of IPv4, [::]:%s for all of IPv6", rest, rest)
			}
			ap, err := netip.ParseAddrPort(s)
			if err != nil {
				return netip.AddrPort{}, errors.New("must be an IP address and port, such as " + example)
			}
			return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
		},
	}
}

// network is a CIDR; an address alone is the network of that address.
func network() value[netip.Prefix] {
	return value[netip.Prefix]{
		noun: "a network", schema: map[string]any{"type": "string"},
		parse: func(s string) (netip.Prefix, error) {
			if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
				return netip.PrefixFrom(a, a.BitLen()), nil
			}
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return netip.Prefix{}, errors.New("must be a network such as 10.0.0.0/8 or fd00::/8")
			}
			if p != p.Masked() {
				return netip.Prefix{}, fmt.Errorf("has bits set after its length: write %s", p.Masked())
			}
			return p, nil
		},
	}
}

// domain is an absolute domain name, of any octets with the escapes of master
// files (RFC 1035 section 5.1), which may be longer than host names; white space
// is no part of one. It is given in lower case with the last dot, and read with
// or without. other, if given, is a word taken as it is.
func domain(other string) value[string] {
	return value[string]{noun: "a domain name", schema: map[string]any{"type": "string"}, parse: func(s string) (string, error) {
		if other != "" && s == other {
			return s, nil
		}
		if i := strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }); i >= 0 {
			if c, _ := utf8.DecodeRuneInString(s[i:]); c > '~' && c != utf8.RuneError {
				return "", fmt.Errorf("must not hold %q: write an international name in its ASCII form (xn--...)", c)
			}
			return "", fmt.Errorf("must not hold %q: write other octets as \\DDD", s[i])
		}
		name, err := wire.ParseName(s)
		if err != nil {
			return "", errors.New("must be a domain name: labels of 1 to 63 octets with dots between them, 253 in all")
		}
		return name.String(), nil
	}}
}

// mailbox is a mail address, given as the domain name that SOA records have it as: what
// stands before the @ is the first label (RFC 1035 section 8).
func mailbox() value[string] {
	return value[string]{noun: "a mail address", schema: map[string]any{"type": "string"}, parse: func(s string) (string, error) {
		at := strings.LastIndexByte(s, '@')
		if at < 1 || at == len(s)-1 {
			return "", errors.New("must be a mail address, such as hostmaster@example.com")
		}
		return domain("").parse(strings.NewReplacer(`\`, `\\`, ".", `\.`).Replace(s[:at]) + "." + s[at+1:])
	}}
}

// serviceName is a service's name in lower case; "*" is taken as it is.
func serviceName() value[string] {
	return value[string]{noun: "a service's name or *", schema: map[string]any{"type": "string"}, parse: func(s string) (string, error) {
		if s == "*" {
			return s, nil
		}
		name, err := registry.FoldService(s)
		return name, reason(err)
	}}
}

// reason is a registry's error without the value, which stands before it.
func reason(err error) error {
	field, ok := errors.AsType[*registry.FieldError](err)
	if !ok {
		return err
	}
	if field.Mend == "" {
		return errors.New(field.Reason)
	}
	return fmt.Errorf("%s: %s", field.Reason, field.Mend)
}

// prefix is the beginning of keys in etcd; a last slash is dropped.
func prefix() value[string] {
	return value[string]{noun: "a key prefix", schema: map[string]any{"type": "string", "pattern": "^/."}, parse: func(s string) (string, error) {
		ks, err := registry.NewKeyspace(s)
		if err != nil {
			return "", reason(err)
		}
		return strings.TrimSuffix(ks.Root(), "/"), nil
	}}
}

// endpoint is the URL of an etcd server.
func endpoint() value[string] {
	return value[string]{noun: "a URL", schema: map[string]any{"type": "string", "format": "uri"}, parse: func(s string) (string, error) {
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			return "", errors.New("must be a URL such as https://etcd-1:2379")
		case u.User != nil:
			return "", errors.New("must not hold a user: use registry.etcd.username and password_file")
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
			return "", errors.New("must be a scheme, host and port alone")
		}
		return u.Scheme + "://" + u.Host, nil
	}}
}

// maxAnswers is a number of answers, or the word auto.
func maxAnswers() value[int] {
	n := integer(1, registry.AnswersMax)
	return value[int]{
		noun: "a whole number or auto", limits: n.limits + ", or auto",
		schema: map[string]any{"oneOf": []any{n.schema, map[string]any{"const": "auto"}}},
		parse: func(s string) (int, error) {
			if s == "auto" {
				return registry.MaxAnswersAuto, nil
			}
			v, err := n.parse(s)
			if err != nil {
				return 0, fmt.Errorf("%w, or auto", err)
			}
			return v, nil
		},
	}
}

// failoverName is a service's name, of the same zone or with a dot at its end.
func failoverName() value[string] {
	return value[string]{noun: "a service's name", schema: map[string]any{"type": "string"}, parse: func(s string) (string, error) {
		name, absolute := strings.CutSuffix(s, ".")
		folded, err := registry.FoldService(name)
		if absolute {
			folded += "."
		}
		return folded, reason(err)
	}}
}
