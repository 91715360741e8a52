package registry

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Policies are the names of the policies that there are.
func Policies() []string {
	return []string{"weighted", "round-robin", "least-loaded", "hash", "all"}
}

// ProxyPolicies are the names of the policies that proxies have: those of DNS,
// and peak-ewma, which goes by how long answers take.
func ProxyPolicies() []string { return append(Policies(), "peak-ewma") }

const serviceMend = `write an object, as {"policy":"weighted","ttl":5}`

// DecodeService reads the value of a service's key. The name is checked and
// folded. Unknown fields are Ignored, null is unset, and a wrong value makes
// the whole record unusable. Errors are FieldErrors.
func DecodeService(name string, value []byte) (Service, error) {
	folded, err := FoldService(name)
	if err != nil {
		return Service{}, within("service", err)
	}
	s := Service{Name: folded}
	if s.Ignored, err = decode(value, serviceMend, s.field); err != nil {
		return Service{}, err
	}
	if err := s.Validate(); err != nil {
		return Service{}, err
	}
	return s, nil
}

// field is a fieldReader.
func (s *Service) field(c *cursor, name []byte) (known bool, err error) {
	switch string(name) {
	case "policy":
		s.Policy, err = c.text(TextMax)
	case "ttl":
		s.TTL, err = c.ttl()
	case "max_answers":
		s.MaxAnswers, err = readMaxAnswers(c)
	case "hash_on":
		s.HashOn, err = c.text(TextMax)
	case "checks":
		s.Checks, err = readChecks(c)
	case "fail":
		s.Fail, err = c.text(TextMax)
	case "panic_threshold":
		s.PanicThreshold, err = readShare(c)
	case "slow_start":
		s.SlowStart, err = readSlowStart(c)
	case "spill":
		s.Spill, err = c.text(TextMax)
	case "proxy_policy":
		s.ProxyPolicy, err = c.text(TextMax)
	case "hash_bound":
		s.HashBound, err = readHashBound(c)
	case "vip":
		s.VIP, err = readVIP(c)
	case "failover":
		s.Failover, err = readFailover(c)
	case "meta":
		s.Meta, err = readMeta(c)
	default:
		return false, nil
	}
	return true, err
}

// readFailover reads a Service.Failover.
func readFailover(c *cursor) ([]string, error) {
	if c.null() {
		return nil, nil
	}
	list := []string{}
	err := c.array(FailoverMax, func(int) error {
		name, err := c.text(TextMax)
		if err == nil {
			list = append(list, strings.ToLower(name))
		}
		return err
	})
	return list, err
}

// readMaxAnswers reads a number of answers or "auto".
func readMaxAnswers(c *cursor) (int, error) {
	switch c.peek() {
	case 'n':
		if c.null() {
			return 0, nil
		}
	case '"':
		s, err := c.text(TextMax)
		if err == nil && s != "auto" {
			err = bad("", s, "is neither a number nor auto", `write "auto" or 1 to 4096`)
		}
		return MaxAnswersAuto, err
	}
	return c.integer(1, AnswersMax)
}

// readShare reads a share from 0 to 1.
func readShare(c *cursor) (*float64, error) {
	if c.null() {
		return nil, nil
	}
	f, err := c.number(0, 1)
	if err != nil {
		return nil, err
	}
	return &f, nil
}

// readHashBound reads a Service.HashBound.
func readHashBound(c *cursor) (float64, error) {
	if c.null() {
		return 0, nil
	}
	return c.number(1, HashBoundMax)
}

// readVIP reads a Service.VIP.
func readVIP(c *cursor) ([]netip.Addr, error) {
	if c.null() {
		return nil, nil
	}
	list := Instance{Addresses: []netip.Addr{}} // the rules are those of an instance's
	err := c.array(VIPsMax, func(int) error { return list.readAddress(c) })
	return list.Addresses, err
}

// readSlowStart reads a duration in which 0 is said and not unset.
func readSlowStart(c *cursor) (*time.Duration, error) {
	if c.null() {
		return nil, nil
	}
	d, err := c.duration()
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// Validate says what of a service cannot be used, however it came to be: from
// a record or from a configuration file. Zero fields are unset and always
// good. Times to live are not brought inside their limits here, but refused.
func (s Service) Validate() error {
	words := [...]struct {
		field, word string
		words       []string
	}{
		{"policy", s.Policy, Policies()},
		{"hash_on", s.HashOn, []string{"client", "subnet", "name"}},
		{"fail", s.Fail, []string{"open", "closed", "tier"}},
		{"spill", s.Spill, []string{"proportional", "when-empty"}},
		{"proxy_policy", s.ProxyPolicy, ProxyPolicies()},
	}
	for _, w := range words {
		if err := memberOf(w.field, w.word, w.words...); err != nil {
			return err
		}
	}
	switch {
	case s.TTL != 0 && (s.TTL < TTLMin || s.TTL > TTLMax):
		return bad("ttl", s.TTL.String(), "is out of range", "write 1s to 1h")
	case s.MaxAnswers != MaxAnswersAuto && (s.MaxAnswers < 0 || s.MaxAnswers > AnswersMax):
		return bad("max_answers", strconv.Itoa(s.MaxAnswers), "is out of range", `write "auto" or 1 to 4096`)
	case s.PanicThreshold != nil && !(*s.PanicThreshold >= 0 && *s.PanicThreshold <= 1):
		return bad("panic_threshold", formatFloat(*s.PanicThreshold), "is out of range", "write 0 to 1")
	case s.SlowStart != nil && (*s.SlowStart < 0 || *s.SlowStart > SlowStartMax):
		return bad("slow_start", s.SlowStart.String(), "is out of range", "write 0 to 1h")
	case s.HashBound != 0 && !(s.HashBound >= 1 && s.HashBound <= HashBoundMax):
		return bad("hash_bound", formatFloat(s.HashBound), "is out of range", "write 1 to 100, as 1.25")
	case len(s.VIP) > VIPsMax:
		return &FieldError{Field: "vip", Reason: "has more than " + strconv.Itoa(VIPsMax) + " entries", Mend: "write fewer"}
	case len(s.Failover) > FailoverMax:
		return &FieldError{Field: "failover", Reason: "has more than " + strconv.Itoa(FailoverMax) + " entries", Mend: "write fewer"}
	case len(s.Checks) > ChecksMax:
		return &FieldError{Field: "checks", Reason: "has more than " + strconv.Itoa(ChecksMax) + " entries", Mend: "write fewer"}
	}
	for i, name := range s.Failover {
		if _, err := FoldService(strings.TrimSuffix(name, ".")); err != nil {
			return bad("failover["+strconv.Itoa(i)+"]", name, "is no name of a service", `write "web-spare" for one of the same zone, "web.svc.dc2." for one of another`)
		}
	}
	for i, check := range s.Checks {
		if err := check.Validate(); err != nil {
			return within("checks["+strconv.Itoa(i)+"]", err)
		}
	}
	return nil
}

// Merge returns s with every field that over sets in place of its own: how a
// record in etcd goes over a service of the configuration, and that over "*".
// Lists and metadata are replaced whole. The name and revision are over's
// unless it has none.
func (s Service) Merge(over Service) Service {
	replace(&s.Name, over.Name)
	replace(&s.Policy, over.Policy)
	replace(&s.TTL, over.TTL)
	replace(&s.MaxAnswers, over.MaxAnswers)
	replace(&s.HashOn, over.HashOn)
	replace(&s.Fail, over.Fail)
	replace(&s.PanicThreshold, over.PanicThreshold)
	replace(&s.SlowStart, over.SlowStart)
	replace(&s.Spill, over.Spill)
	replace(&s.ProxyPolicy, over.ProxyPolicy)
	replace(&s.HashBound, over.HashBound)
	replace(&s.Revision, over.Revision)
	if over.Checks != nil {
		s.Checks = over.Checks
	}
	if over.VIP != nil {
		s.VIP = over.VIP
	}
	if over.Failover != nil {
		s.Failover = over.Failover
	}
	if over.Meta != nil {
		s.Meta = over.Meta
	}
	return s
}

// replace puts v in place of *field unless v is unset.
func replace[T comparable](field *T, v T) {
	var unset T
	if v != unset {
		*field = v
	}
}
