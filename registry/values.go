package registry

import (
	"math"
	"strconv"
	"time"
)

// text reads a string of a bounded size that may be kept and shown.
func (c *cursor) text(sizeMax int) (string, error) {
	if c.null() {
		return "", nil
	}
	raw, err := c.rawString()
	if err != nil {
		return "", err
	}
	s := string(raw)
	return s, checkText(s, sizeMax)
}

// boolean reads true or false.
func (c *cursor) boolean() (bool, error) {
	switch {
	case c.null(), c.peek() == 'f' && c.literal("false"):
		return false, nil
	case c.peek() == 't' && c.literal("true"):
		return true, nil
	}
	return false, c.wrongType("true or false")
}

// number reads a finite number of at least least and at most greatest.
func (c *cursor) number(least, greatest float64) (float64, error) {
	raw, err := c.rawNumber()
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f < least || f > greatest {
		return 0, bad("", raw, "is out of range", "write "+formatFloat(least)+" to "+formatFloat(greatest))
	}
	return f, nil
}

// integer reads a whole number of at least least and at most greatest.
func (c *cursor) integer(least, greatest int) (int, error) {
	c.peek()
	start, n := c.at, 0
	for c.at < len(c.in) && c.at-start < 9 && '0' <= c.in[c.at] && c.in[c.at] <= '9' {
		n = n*10 + int(c.in[c.at]-'0')
		c.at++
	}
	simple := c.at > start && (c.in[start] != '0' || c.at == start+1) && (c.at == len(c.in) || isDelimiter(c.in[c.at]))
	if !simple {
		c.at = start
		f, err := c.number(float64(least), float64(greatest))
		if err != nil {
			return 0, err
		}
		if f != math.Trunc(f) {
			return 0, bad("", c.in[start:c.at], "is not a whole number", "write a whole number")
		}
		n = int(f)
	}
	if n < least || n > greatest {
		return 0, bad("", c.in[start:c.at], "is out of range", "write "+strconv.Itoa(least)+" to "+strconv.Itoa(greatest))
	}
	return n, nil
}

func isDelimiter(b byte) bool {
	switch b {
	case ',', '}', ']', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}

// duration reads "2s", "1m30s" or a number of seconds. The limits are applied
// by the caller.
func (c *cursor) duration() (time.Duration, error) {
	const mend = `write "2s", "500ms" or a number of seconds`
	if c.null() {
		return 0, nil
	}
	if c.peek() == '"' {
		raw, err := c.rawString()
		if err != nil {
			return 0, err
		}
		d, err := time.ParseDuration(string(raw))
		if err != nil || d < 0 {
			return 0, bad("", raw, "is not a duration", mend)
		}
		return d, nil
	}
	start := c.at
	raw, err := c.rawNumber()
	if err != nil {
		return 0, err
	}
	// What overflows a float64 is infinite, and so brought down to the limit.
	seconds, _ := strconv.ParseFloat(string(raw), 64)
	if !(seconds >= 0) {
		return 0, bad("", c.in[start:c.at], "is negative", mend)
	}
	return secondsToDuration(seconds), nil
}

func secondsToDuration(seconds float64) time.Duration {
	if seconds >= float64(math.MaxInt64)/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(math.Round(seconds * float64(time.Second)))
}

// ttl reads a time to live and brings it between TTLMin and TTLMax; 0 and null
// are unset.
func (c *cursor) ttl() (time.Duration, error) {
	d, err := c.duration()
	if err != nil || d == 0 {
		return 0, err
	}
	return min(max(d, TTLMin), TTLMax), nil
}

// timestamp reads an RFC 3339 time; "" and null are the zero time.
func (c *cursor) timestamp() (time.Time, error) {
	s, err := c.text(TextMax)
	if err != nil || s == "" {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, bad("", s, "is not a time", `write RFC 3339, as "2026-01-02T15:04:05Z"`)
	}
	return t.UTC(), nil
}
