package registry

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// The JSON forms that are written: what a registrant would write by hand, with
// everything that is unset left out.
type (
	instanceJSON struct {
		Address   string            `json:"address,omitempty"`
		Addresses []string          `json:"addresses,omitempty"`
		Port      uint16            `json:"port,omitempty"`
		Ports     map[string]any    `json:"ports,omitempty"`
		Weight    *uint16           `json:"weight,omitempty"`
		Priority  uint16            `json:"priority,omitempty"`
		Tags      []string          `json:"tags,omitempty"`
		Meta      map[string]string `json:"meta,omitempty"`
		Region    string            `json:"region,omitempty"`
		Zone      string            `json:"zone,omitempty"`
		TTL       any               `json:"ttl,omitempty"`
		Checks    *[]checkJSON      `json:"checks,omitempty"`
	}
	checkJSON struct {
		Type     string   `json:"type"`
		Port     string   `json:"port,omitempty"`
		Path     string   `json:"path,omitempty"`
		Host     string   `json:"host,omitempty"`
		Method   string   `json:"method,omitempty"`
		Status   string   `json:"status,omitempty"`
		Service  string   `json:"service,omitempty"`
		Name     string   `json:"name,omitempty"`
		Record   string   `json:"record,omitempty"`
		Insecure bool     `json:"insecure,omitempty"`
		Keep     bool     `json:"keep,omitempty"`
		Command  []string `json:"command,omitempty"`
		Interval string   `json:"interval,omitempty"`
		Timeout  string   `json:"timeout,omitempty"`
		Rise     int      `json:"rise,omitempty"`
		Fall     int      `json:"fall,omitempty"`
	}
	serviceJSON struct {
		Policy         string            `json:"policy,omitempty"`
		TTL            any               `json:"ttl,omitempty"`
		MaxAnswers     any               `json:"max_answers,omitempty"`
		HashOn         string            `json:"hash_on,omitempty"`
		Checks         *[]checkJSON      `json:"checks,omitempty"`
		Fail           string            `json:"fail,omitempty"`
		PanicThreshold *float64          `json:"panic_threshold,omitempty"`
		SlowStart      *string           `json:"slow_start,omitempty"`
		Spill          string            `json:"spill,omitempty"`
		ProxyPolicy    string            `json:"proxy_policy,omitempty"`
		HashBound      float64           `json:"hash_bound,omitempty"`
		VIP            *[]netip.Addr     `json:"vip,omitempty"`
		Failover       *[]string         `json:"failover,omitempty"`
		Meta           map[string]string `json:"meta,omitempty"`
	}
	adminJSON struct {
		State  string    `json:"state"`
		Reason string    `json:"reason,omitempty"`
		By     string    `json:"by,omitempty"`
		Since  time.Time `json:"since,omitzero"`
		Until  time.Time `json:"until,omitzero"`
	}
	loadJSON struct {
		Load     *float64 `json:"load,omitempty"`
		Active   *int     `json:"active,omitempty"`
		Capacity int      `json:"capacity,omitempty"`
	}
	reportJSON struct {
		State       string    `json:"state"`
		Reason      string    `json:"reason,omitempty"`
		Since       time.Time `json:"since,omitzero"`
		FirstSign   time.Time `json:"first_sign,omitzero"`
		LastGood    time.Time `json:"last_good,omitzero"`
		Incarnation int64     `json:"incarnation,omitempty"`
	}
	memberJSON struct {
		Address string    `json:"address,omitempty"`
		Version string    `json:"version,omitempty"`
		Since   time.Time `json:"since,omitzero"`
		Suspect bool      `json:"suspect,omitempty"`
	}
)

// routeJSON is written whole from a Route: the names are those of its fields.
type (
	routeJSON struct {
		Listeners      []string          `json:"listeners,omitempty"`
		Hosts          []string          `json:"hosts,omitempty"`
		Path           string            `json:"path,omitempty"`
		Methods        []string          `json:"methods,omitempty"`
		Headers        []routeMatchJSON  `json:"headers,omitempty"`
		Query          []routeMatchJSON  `json:"query,omitempty"`
		Service        string            `json:"service"`
		Zone           string            `json:"zone,omitempty"`
		Port           string            `json:"port,omitempty"`
		Tag            string            `json:"tag,omitempty"`
		TLS            string            `json:"tls,omitempty"`
		Protocol       string            `json:"protocol,omitempty"`
		StripPrefix    bool              `json:"strip_prefix,omitempty"`
		Rewrite        string            `json:"rewrite,omitempty"`
		Host           string            `json:"host,omitempty"`
		SetRequest     map[string]string `json:"set_request,omitempty"`
		RemoveRequest  []string          `json:"remove_request,omitempty"`
		SetResponse    map[string]string `json:"set_response,omitempty"`
		RemoveResponse []string          `json:"remove_response,omitempty"`
		HashOn         string            `json:"hash_on,omitempty"`
		Sticky         string            `json:"sticky,omitempty"`
		Timeout        string            `json:"timeout,omitempty"`
		TryTimeout     string            `json:"try_timeout,omitempty"`
		Retries        *int              `json:"retries,omitempty"`
		RetryOn        string            `json:"retry_on,omitempty"`
		RetryPost      bool              `json:"retry_post,omitempty"`
		BodyMax        int64             `json:"body_max,omitempty"`
		Limit          *routeLimitJSON   `json:"limit,omitempty"`
	}
	routeMatchJSON struct {
		Name  string `json:"name"`
		Value string `json:"value,omitempty"`
	}
	routeLimitJSON struct {
		Rate  float64 `json:"rate"`
		Burst int     `json:"burst,omitempty"`
		By    string  `json:"by,omitempty"`
	}
)

// InstanceMembers are the members that an instance's record may have. Decoding
// passes over others, as a later version may have put them there; who writes a
// record for somebody can tell them of a slip.
func InstanceMembers() []string { return membersOf(reflect.TypeFor[instanceJSON]()) }

// ServiceMembers are those of a service's record.
func ServiceMembers() []string { return membersOf(reflect.TypeFor[serviceJSON]()) }

// CheckMembers are those of each of the checks in either.
func CheckMembers() []string { return membersOf(reflect.TypeFor[checkJSON]()) }

// adminMembers are those of an administrator's word.
func adminMembers() []string { return membersOf(reflect.TypeFor[adminJSON]()) }

// loadMembers are those of a load report.
func loadMembers() []string { return membersOf(reflect.TypeFor[loadJSON]()) }

// membersOf are the names of a type's members in JSON.
func membersOf(t reflect.Type) []string {
	var names []string
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// EncodeInstance returns the value of an instance's key. What it returns,
// DecodeInstance reads: an instance that it could not use is an error, the
// FieldError that decoding would give.
func EncodeInstance(in Instance) ([]byte, error) {
	out := instanceJSON{
		Port: in.Port, Priority: in.Priority, Tags: in.Tags, Meta: in.Meta,
		Region: in.Region, Zone: in.Zone, TTL: encodeTTL(in.TTL), Checks: encodeChecks(in.Checks),
	}
	if len(in.Addresses) == 1 {
		out.Address = in.Addresses[0].String()
	} else {
		for _, a := range in.Addresses {
			out.Addresses = append(out.Addresses, a.String())
		}
	}
	if in.Weight != 1 {
		out.Weight = &in.Weight
	}
	for _, p := range in.Ports {
		if out.Ports == nil {
			out.Ports = make(map[string]any, len(in.Ports))
		}
		if p.Proto == "udp" {
			out.Ports[p.Name] = strconv.Itoa(int(p.Number)) + "/udp"
		} else {
			out.Ports[p.Name] = p.Number
		}
	}
	return encode(out, func(value []byte) error {
		_, err := DecodeInstance(in.Service, in.ID, value)
		return err
	})
}

// EncodeService returns the value of a service's key; see EncodeInstance.
func EncodeService(s Service) ([]byte, error) {
	out := serviceJSON{
		Policy: s.Policy, TTL: encodeTTL(s.TTL), HashOn: s.HashOn, Checks: encodeChecks(s.Checks),
		Fail: s.Fail, PanicThreshold: s.PanicThreshold, Spill: s.Spill, Meta: s.Meta,
		ProxyPolicy: s.ProxyPolicy, HashBound: s.HashBound,
	}
	if s.VIP != nil {
		out.VIP = &s.VIP
	}
	if s.Failover != nil {
		out.Failover = &s.Failover
	}
	switch s.MaxAnswers {
	case 0:
	case MaxAnswersAuto:
		out.MaxAnswers = "auto"
	default:
		out.MaxAnswers = s.MaxAnswers
	}
	if s.SlowStart != nil {
		text := s.SlowStart.String()
		out.SlowStart = &text
	}
	return encode(out, func(value []byte) error {
		_, err := DecodeService(s.Name, value)
		return err
	})
}

// EncodeAdmin returns the value of an admin key; see EncodeInstance. Times are
// written to the second.
func EncodeAdmin(a Admin) ([]byte, error) {
	out := adminJSON{
		State: a.State.String(), Reason: a.Reason, By: a.By,
		Since: a.Since.UTC().Truncate(time.Second), Until: a.Until.UTC().Truncate(time.Second),
	}
	return encode(out, func(value []byte) error {
		_, err := DecodeAdmin(a.Service, a.Instance, value)
		return err
	})
}

// EncodeLoad returns the value of a load key; see EncodeInstance.
func EncodeLoad(l Load) ([]byte, error) {
	out := loadJSON{Capacity: l.Capacity}
	if l.Load >= 0 {
		out.Load = &l.Load
	}
	if l.Active >= 0 {
		out.Active = &l.Active
	}
	return encode(out, func(value []byte) error {
		_, err := DecodeLoad(l.Service, l.Instance, value)
		return err
	})
}

// EncodeMember returns the value of a member's key; see EncodeInstance.
func EncodeMember(m Member) ([]byte, error) {
	out := memberJSON{Address: m.Address, Version: m.Version, Since: m.Since.UTC().Truncate(time.Second), Suspect: m.Suspect}
	return encode(out, func(value []byte) error {
		_, err := DecodeMember(m.Name, value)
		return err
	})
}

// EncodeReport returns the value of a health key; see EncodeInstance. A reason
// longer than a record may hold is cut.
func EncodeReport(r Report) ([]byte, error) {
	if len(r.Reason) > TextMax {
		r.Reason = strings.ToValidUTF8(r.Reason[:TextMax], "")
	}
	out := reportJSON{
		State: reportFailing, Reason: r.Reason, Incarnation: r.Incarnation,
		Since: inMillis(r.Since), FirstSign: inMillis(r.FirstSign), LastGood: inMillis(r.LastGood),
	}
	if r.Passing {
		out.State = reportPassing
	}
	return encode(out, func(value []byte) error {
		_, err := DecodeReport(r.Service, r.Instance, r.Checker, value)
		return err
	})
}

// inMillis is a time of which others may measure how long something took.
func inMillis(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// EncodeRoute returns the value of a route's key; see EncodeInstance.
func EncodeRoute(r Route) ([]byte, error) {
	out := routeJSON{
		Listeners: r.Listeners, Hosts: r.Hosts, Path: r.Path, Methods: r.Methods,
		Service: r.Service, Zone: r.Zone, Port: r.Port, Tag: r.Tag, TLS: r.TLS, Protocol: r.Protocol,
		StripPrefix: r.StripPrefix, Rewrite: r.Rewrite, Host: r.Host,
		SetRequest: r.SetRequest, RemoveRequest: r.RemoveRequest, SetResponse: r.SetResponse, RemoveResponse: r.RemoveResponse,
		HashOn: r.HashOn, Sticky: r.Sticky, Timeout: encodeDuration(r.Timeout), TryTimeout: encodeDuration(r.TryTimeout),
		Retries: r.Retries, RetryOn: r.RetryOn, RetryPost: r.RetryPost, BodyMax: r.BodyMax, Limit: (*routeLimitJSON)(r.Limit),
	}
	for _, m := range r.Headers {
		out.Headers = append(out.Headers, routeMatchJSON(m))
	}
	for _, m := range r.Query {
		out.Query = append(out.Query, routeMatchJSON(m))
	}
	return encode(out, func(value []byte) error {
		_, err := DecodeRoute(r.Name, value)
		return err
	})
}

// encode writes a value and reads it back, so that nothing is ever written
// that would be a Problem: there is one place that knows what is good.
func encode(v any, check func([]byte) error) ([]byte, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding a record: %w", err)
	}
	return value, check(value)
}

// encodeTTL writes whole seconds as a number and anything else as "1.5s".
func encodeTTL(d time.Duration) any {
	switch {
	case d == 0:
		return nil
	case d%time.Second == 0:
		return int64(d / time.Second)
	}
	return d.String()
}

func encodeChecks(checks []Check) *[]checkJSON {
	if checks == nil {
		return nil
	}
	out := make([]checkJSON, len(checks))
	for i, k := range checks {
		out[i] = checkJSON{
			Type: k.Type, Port: k.Port, Path: k.Path, Host: k.Host, Method: k.Method, Status: k.Status,
			Service: k.Service, Name: k.Name, Record: k.Record, Insecure: k.Insecure, Keep: k.Keep, Command: k.Command,
			Interval: encodeDuration(k.Interval), Timeout: encodeDuration(k.Timeout), Rise: k.Rise, Fall: k.Fall,
		}
	}
	return &out
}

func encodeDuration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// formatFloat writes a number for an error.
func formatFloat(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}
