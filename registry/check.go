package registry

import (
	"slices"
	"strconv"
	"strings"
)

// CheckTypes are the kinds of check that there are.
func CheckTypes() []string {
	return []string{"http", "https", "tcp", "grpc", "dns", "ttl", "held", "exec"}
}

// readChecks reads a list of checks. null is nil, which is unset; an empty list
// is empty and not nil, which says that there is no check.
func readChecks(c *cursor) ([]Check, error) {
	if c.null() {
		return nil, nil
	}
	checks := []Check{}
	err := c.array(ChecksMax, func(i int) error {
		c.list, c.index = "checks", i
		check, err := readCheck(c)
		checks = append(checks, check)
		return err
	})
	c.list = ""
	return checks, err
}

// readCheck reads one check.
func readCheck(c *cursor) (Check, error) {
	var k Check
	err := c.object(func(name []byte) error {
		known, err := k.field(c, name)
		return c.after(name, known, err)
	})
	if err != nil {
		return Check{}, err
	}
	return k, k.Validate()
}

// Validate says what of a check cannot be used, however it came to be: from a
// record or from a configuration file. Zero fields are unset and always good.
func (k Check) Validate() error {
	if err := memberOf("type", k.Type, CheckTypes()...); err != nil {
		return err
	}
	switch {
	case k.Type == "":
		return &FieldError{Field: "type", Reason: "is missing", Mend: "write one of " + joinWords(CheckTypes())}
	case k.Type == "dns" && k.Name == "":
		return &FieldError{Field: "name", Reason: "is missing", Mend: "write the name that a dns check asks for"}
	case k.Type == "exec" && len(k.Command) == 0:
		return &FieldError{Field: "command", Reason: "is missing", Mend: "write a list: the absolute path of a program, and its arguments"}
	case len(k.Command) > 0 && k.Command[0][:min(1, len(k.Command[0]))] != "/":
		return bad("command", k.Command[0], "is not an absolute path", "no PATH is searched and no shell is used; write where the program is")
	case k.Type == "ttl" && k.Interval == 0:
		return &FieldError{Field: "interval", Reason: "is missing", Mend: "write how long a heartbeat is good for, as 10s"}
	case k.Path != "" && (k.Path[0] != '/' || strings.ContainsAny(k.Path, " #")):
		return bad("path", k.Path, "is not a request target", `begin it with "/" and write no space and no "#"`)
	case strings.ContainsAny(k.Host, " /@#?"):
		return bad("host", k.Host, "is not a host", "write a name, or a name and a port")
	case k.Interval != 0 && (k.Interval < CheckIntervalMin || k.Interval > CheckIntervalMax):
		return bad("interval", k.Interval.String(), "is out of range", "write 100ms to 1h")
	case k.Timeout != 0 && (k.Timeout < CheckTimeoutMin || k.Timeout > CheckTimeoutMax):
		return bad("timeout", k.Timeout.String(), "is out of range", "write 1ms to 5m")
	case k.Rise < 0 || k.Rise > CheckCountMax:
		return bad("rise", strconv.Itoa(k.Rise), "is out of range", "write 1 to 100")
	case k.Fall < 0 || k.Fall > CheckCountMax:
		return bad("fall", strconv.Itoa(k.Fall), "is out of range", "write 1 to 100")
	}
	if err := memberOf("method", k.Method, "GET", "HEAD"); err != nil {
		return err
	}
	return k.validateTexts()
}

// validateTexts checks the fields that hold what a target is asked for.
func (k Check) validateTexts() error {
	texts := [...]struct {
		field, value string
		sizeMax      int
	}{
		{"path", k.Path, PathMax},
		{"host", k.Host, TextMax},
		{"service", k.Service, TextMax},
	}
	for _, t := range texts {
		if err := checkText(t.value, t.sizeMax); err != nil {
			return within(t.field, err)
		}
	}
	if len(k.Command) > CommandMax {
		return bad("command", k.Command[0], "has too many arguments", "write at most "+strconv.Itoa(CommandMax)+" in all")
	}
	for _, arg := range k.Command {
		if err := checkText(arg, PathMax); err != nil {
			return within("command", err)
		}
	}
	if k.Port != "" && !isLabel(k.Port) {
		return bad("port", k.Port, "is not a port", "write a number or the name of a port")
	}
	if isNumber(k.Port) {
		if _, err := parsePort(k.Port); err != nil {
			return within("port", err)
		}
	}
	if k.Name != "" {
		if err := checkDomain(k.Name); err != nil {
			return within("name", err)
		}
	}
	if k.Record != "" && !isLabel(k.Record) {
		return bad("record", k.Record, "is not a record type", "write A, AAAA, SOA or another type's name")
	}
	if k.Status == "" {
		return nil
	}
	if _, err := ParseStatus(k.Status); err != nil {
		return within("status", err)
	}
	return nil
}

// field is a fieldReader.
func (k *Check) field(c *cursor, name []byte) (known bool, err error) {
	switch string(name) {
	case "type":
		k.Type, err = c.text(TextMax)
	case "port":
		k.Port, err = readCheckPort(c)
	case "path":
		k.Path, err = c.text(PathMax)
	case "host":
		k.Host, err = c.text(TextMax)
	case "method":
		k.Method, err = c.text(TextMax)
	case "status":
		k.Status, err = readStatus(c)
	case "service":
		k.Service, err = c.text(TextMax)
	case "name":
		k.Name, err = c.text(TextMax)
	case "record":
		k.Record, err = c.text(TextMax)
		k.Record = strings.ToUpper(k.Record)
	case "insecure":
		k.Insecure, err = c.boolean()
	case "keep":
		k.Keep, err = c.boolean()
	case "command":
		k.Command, err = readCommand(c)
	case "interval":
		k.Interval, err = c.duration()
	case "timeout":
		k.Timeout, err = c.duration()
	case "rise":
		k.Rise, err = c.integer(1, CheckCountMax)
	case "fall":
		k.Fall, err = c.integer(1, CheckCountMax)
	default:
		return false, nil
	}
	return true, err
}

// readCheckPort reads the name of a port or its number, with or without quotes.
func readCheckPort(c *cursor) (string, error) {
	if first := c.peek(); first == '"' || first == 'n' {
		return c.folded()
	}
	n, err := c.integer(1, 65535)
	return strconv.Itoa(n), err
}

// readCommand reads a program and its arguments.
func readCommand(c *cursor) (list []string, err error) {
	err = c.array(CommandMax, func(int) error {
		s, err := c.text(PathMax)
		list = append(list, s)
		return err
	})
	return list, err
}

// Equal reports whether two checks are the same.
func (k Check) Equal(o Check) bool {
	return k.Type == o.Type && k.Port == o.Port && k.Path == o.Path && k.Host == o.Host && k.Method == o.Method &&
		k.Status == o.Status && k.Service == o.Service && k.Name == o.Name && k.Record == o.Record &&
		k.Insecure == o.Insecure && k.Keep == o.Keep && slices.Equal(k.Command, o.Command) &&
		k.Interval == o.Interval && k.Timeout == o.Timeout && k.Rise == o.Rise && k.Fall == o.Fall
}

// readStatus reads "200-399", "200,204" or the number 200.
func readStatus(c *cursor) (string, error) {
	if first := c.peek(); first == '"' || first == 'n' {
		return c.text(TextMax)
	}
	n, err := c.integer(100, 599)
	return strconv.Itoa(n), err
}

// StatusRange is a range of HTTP status codes, both ends in it.
type StatusRange struct{ From, To int }

// ParseStatus reads the status codes that a check accepts, as "200-399" or
// "200,204,300-303". The empty string accepts 200 to 399.
func ParseStatus(s string) ([]StatusRange, error) {
	if s == "" {
		return []StatusRange{{From: 200, To: 399}}, nil
	}
	var ranges []StatusRange
	for part := range strings.SplitSeq(s, ",") {
		low, high, two := strings.Cut(strings.TrimSpace(part), "-")
		if !two {
			high = low
		}
		from, err1 := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || from < 100 || to > 599 || from > to {
			return nil, bad("", s, "is not a list of status codes", `write codes and ranges from 100 to 599, as "200-399" or "200,204"`)
		}
		ranges = append(ranges, StatusRange{From: from, To: to})
	}
	return ranges, nil
}

// memberOf says whether a word is unset or one of those known.
func memberOf(field, word string, words ...string) error {
	if word == "" || slices.Contains(words, word) {
		return nil
	}
	return bad(field, word, "is not known", "write one of "+joinWords(words))
}

// joinWords lists words for a mend.
func joinWords(words []string) string { return strings.Join(words, ", ") }
