package registry

import "math"

// String names the state as records do; AdminNone is the empty string.
func (s AdminState) String() string {
	switch s {
	case AdminNone:
	case AdminDrain:
		return "drain"
	case AdminMaintenance:
		return "maintenance"
	case AdminUp:
		return "up"
	case AdminDown:
		return "down"
	case AdminFreeze:
		return "freeze"
	}
	return ""
}

// MarshalText is String, for JSON and logs.
func (s AdminState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseAdminState returns the state that a record names.
func ParseAdminState(s string) (AdminState, error) {
	for state := AdminDrain; state <= AdminFreeze; state++ {
		if state.String() == s {
			return state, nil
		}
	}
	return AdminNone, bad("state", s, "is not known", "write one of drain, maintenance, up, down, freeze")
}

// DecodeAdmin reads the value of an admin key. instance may be AllInstances or
// Freeze.
// Errors are FieldErrors.
func DecodeAdmin(service, instance string, value []byte) (Admin, error) {
	const mend = `write an object, as {"state":"drain","reason":"kernel update"}`
	service, instance, err := foldPair(KindAdmin, service, instance)
	if err != nil {
		return Admin{}, err
	}
	a := Admin{Service: service, Instance: instance}
	var state string
	a.Ignored, err = decode(value, mend, func(c *cursor, name []byte) (known bool, err error) {
		switch string(name) {
		case "state":
			state, err = c.text(TextMax)
		case "reason":
			a.Reason, err = c.text(MetaValueMax)
		case "by":
			a.By, err = c.text(TextMax)
		case "since":
			a.Since, err = c.timestamp()
		case "until":
			a.Until, err = c.timestamp()
		default:
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return Admin{}, err
	}
	if a.State, err = ParseAdminState(state); err != nil {
		return Admin{}, err
	}
	if (a.State == AdminFreeze) != (instance == Freeze) {
		return Admin{}, bad("state", state, "does not belong to "+instance, "write freeze to "+Freeze+", and the other states to an instance or to "+AllInstances)
	}
	return a, nil
}

// DecodeLoad reads the value of a load key. What is not given is negative, or
// 0 for Capacity. At and Revision are the caller's to set. Errors are
// FieldErrors.
func DecodeLoad(service, instance string, value []byte) (Load, error) {
	const mend = `write an object, as {"load":0.41,"active":12,"capacity":100}`
	service, instance, err := foldPair(KindLoad, service, instance)
	if err != nil {
		return Load{}, err
	}
	l := Load{Service: service, Instance: instance, Load: -1, Active: -1}
	l.Ignored, err = decode(value, mend, func(c *cursor, name []byte) (known bool, err error) {
		switch string(name) {
		case "load":
			if !c.null() {
				l.Load, err = c.number(0, loadMax)
			}
		case "active":
			if !c.null() {
				l.Active, err = c.integer(0, math.MaxInt32)
			}
		case "capacity":
			if !c.null() {
				l.Capacity, err = c.integer(0, math.MaxInt32)
			}
		default:
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return Load{}, err
	}
	if l.Load < 0 && l.Active < 0 {
		return Load{}, &FieldError{Field: "load", Reason: "is missing, and so is active", Mend: mend}
	}
	return l, nil
}

// loadMax is the greatest utilisation that makes sense to tell apart; 1 is
// full.
const loadMax = 1e6

// DecodeMember reads the value of a member's key. Errors are FieldErrors.
func DecodeMember(name string, value []byte) (Member, error) {
	const mend = `write an object, as {"address":"10.0.0.5:8653"}`
	folded, err := FoldService(name)
	if err != nil {
		return Member{}, within("member", err)
	}
	m := Member{Name: folded}
	_, err = decode(value, mend, func(c *cursor, name []byte) (known bool, err error) {
		switch string(name) {
		case "address":
			m.Address, err = c.text(TextMax)
		case "version":
			m.Version, err = c.text(TextMax)
		case "since":
			m.Since, err = c.timestamp()
		case "suspect":
			m.Suspect, err = c.boolean()
		default:
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return Member{}, err
	}
	return m, nil
}

// DecodeReport reads the value of a health key. Errors are FieldErrors.
func DecodeReport(service, instance, checker string, value []byte) (Report, error) {
	const mend = `write an object, as {"state":"failing","reason":"connection refused"}`
	service, instance, err := foldPair(KindHealth, service, instance)
	if err != nil {
		return Report{}, err
	}
	r := Report{Service: service, Instance: instance}
	if r.Checker, err = FoldService(checker); err != nil {
		return Report{}, within("checker", err)
	}
	var state string
	_, err = decode(value, mend, func(c *cursor, name []byte) (known bool, err error) {
		switch string(name) {
		case "state":
			state, err = c.text(TextMax)
		case "reason":
			r.Reason, err = c.text(TextMax)
		case "since":
			r.Since, err = c.timestamp()
		case "first_sign":
			r.FirstSign, err = c.timestamp()
		case "last_good":
			r.LastGood, err = c.timestamp()
		case "incarnation":
			var n int
			n, err = c.integer(0, incarnationMax)
			r.Incarnation = int64(n)
		default:
			return false, nil
		}
		return true, err
	})
	switch {
	case err != nil:
		return Report{}, err
	case state == reportPassing:
		r.Passing = true
	case state != reportFailing:
		return Report{}, bad("state", state, "is not known", "write passing or failing")
	}
	return r, nil
}

// incarnationMax is the greatest integer that JSON's numbers hold exactly in
// every reader (RFC 8259 section 6). etcd's revisions stay below it.
const incarnationMax = 1<<53 - 1

// The states of a report.
const (
	reportPassing = "passing"
	reportFailing = "failing"
)
