package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/musterdns/muster/registry"
)

// checkFlagHelp is the help of --check, and checkHelp what the help of a verb
// with that flag says more.
const (
	checkFlagHelp = "how it is checked, as in http:/healthz; may be repeated; `check`s are described above"
	checkHelp     = `A check is TYPE[:PORT][/PATH][,KEY=VALUE...]. Types are http, https, tcp, grpc, dns,
held, which keeps a connection open, and ttl, which waits for heartbeats; PORT is a number
or a port's name; keys are interval, timeout, rise, fall, host, method, status (200+204),
service, name, record, insecure, keep. exec checks are written into keys and files alone:
http:/healthz,interval=1s,fall=2   tcp:9000   grpc,keep   held   ttl,interval=10s   none: no check`
)

// parseCheck reads the value of --check. The PORT may be a name.
func parseCheck(text string) (registry.Check, error) {
	head, rest, _ := strings.Cut(text, ",")
	var c registry.Check
	if i := strings.IndexByte(head, '/'); i >= 0 {
		head, c.Path = head[:i], head[i:]
	}
	c.Type, c.Port, _ = strings.Cut(head, ":")
	for option := range strings.SplitSeq(rest, ",") {
		if option == "" {
			continue
		}
		if err := setCheckOption(&c, option); err != nil {
			return c, usagef("--check %s: %w", text, err)
		}
	}
	if err := c.Validate(); err != nil {
		return c, usagef("--check %s: %w", text, err)
	}
	return c, nil
}

func setCheckOption(c *registry.Check, option string) (err error) {
	key, value, _ := strings.Cut(option, "=")
	switch key {
	case "host":
		c.Host = value
	case "method":
		c.Method = value
	case "status":
		c.Status = strings.ReplaceAll(value, "+", ",")
	case "service":
		c.Service = value
	case "name":
		c.Name = value
	case "record":
		c.Record = value
	case "insecure":
		if c.Insecure = true; strings.Contains(option, "=") {
			err = usagef("insecure: takes no value: leave it out to have certificates verified")
		}
	case "keep":
		if c.Keep = true; strings.Contains(option, "=") {
			err = usagef("keep: takes no value: leave it out to have a connection a check")
		}
	case "interval":
		c.Interval, err = checkDuration(key, value)
	case "timeout":
		c.Timeout, err = checkDuration(key, value)
	case "rise":
		c.Rise, err = checkCount(key, value)
	case "fall":
		c.Fall, err = checkCount(key, value)
	default:
		return usagef("%q: known are interval, timeout, rise, fall, host, method, status (200+204), service, name, record, insecure, keep", key)
	}
	return err
}

func checkDuration(key, value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0, usagef("%s: %q: must be a duration such as 500ms or 5s", key, value)
	}
	return d, nil
}

func checkCount(key, value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0, usagef("%s: %q: must be a whole number", key, value)
	}
	return n, nil
}

// parseChecks reads all values of --check; "none" is an empty list.
func parseChecks(values []string) ([]registry.Check, error) {
	if values == nil {
		return nil, nil
	}
	checks := []registry.Check{}
	if len(values) == 1 && values[0] == "none" {
		return checks, nil
	}
	for _, v := range values {
		c, err := parseCheck(v)
		if err != nil {
			return nil, err
		}
		checks = append(checks, c)
	}
	return checks, nil
}
