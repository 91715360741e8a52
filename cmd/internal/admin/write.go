package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/health"
	"github.com/musterdns/muster/lb/pool"
	"github.com/musterdns/muster/registry"
)

// changeTries is how often a read-modify-write is tried when others change the
// same record meanwhile.
const changeTries = 5

// instanceKey checks a zone, service and instance and makes the key of kind.
func (s *Server) instanceKey(kind registry.Kind, zone, service, id string) (*Zone, registry.Key, error) {
	z, err := s.zone(zone)
	if err != nil {
		return nil, registry.Key{}, err
	}
	if kind == registry.KindAdmin && service == registry.AllServices && id == registry.Freeze {
		return z, registry.Key{Source: z.Source, Kind: kind, Service: service, Name: id}, nil
	}
	name, err := foldService(z, service)
	if err != nil {
		return nil, registry.Key{}, err
	}
	if id == "" {
		return nil, registry.Key{}, badField("instance", "give the instance's id", "is missing")
	}
	folded := id
	if kind != registry.KindAdmin || id != registry.AllInstances && id != registry.Freeze {
		if folded, err = registry.FoldLabel(id); err != nil {
			return nil, registry.Key{}, fieldError("instance", err)
		}
	}
	return z, registry.Key{Source: z.Source, Kind: kind, Service: name, Name: folded}, nil
}

// register answers POST /v1/register.
func (s *Server) register(r *http.Request, in api.RegisterRequest) (any, error) {
	z, k, err := s.instanceKey(registry.KindInstance, in.Zone, in.Service, in.ID)
	if err != nil {
		return nil, err
	}
	if err := checkMembers("instance", in.Instance, registry.InstanceMembers()); err != nil {
		return nil, err
	}
	doc, err := withAddress(in.Instance, r.RemoteAddr)
	if err != nil {
		return nil, err
	}
	if _, err := registry.DecodeInstance(k.Service, k.Name, doc); err != nil {
		return nil, fieldError("instance", err)
	}
	space, err := registry.NewKeyspace(z.Prefix)
	if err != nil {
		return nil, err
	}
	raw, err := space.Raw(k)
	if err != nil {
		return nil, fieldError("instance", err)
	}
	out := api.Registered{Zone: z.Name, Domain: k.Name + "." + k.Service + "." + z.Name, Key: raw}
	if in.TTL != 0 {
		if in.TTL < api.LeaseTTLMin {
			return nil, badField("ttl", "give at least "+api.LeaseTTLMin.String()+", or none", "%s is too short", in.TTL)
		}
		if err := s.holds.put(r.Context(), z.Store, k, doc, time.Duration(in.TTL)); err != nil {
			return nil, err
		}
		rec, err := z.Store.Get(r.Context(), k)
		out.Revision = rec.Revision
		s.awaitShown(r.Context(), z, out.Revision)
		return out, err
	}
	if _, err := s.holds.drop(r.Context(), k, registry.Lease.Close); err != nil {
		return nil, err
	}
	out.Revision, err = z.Store.Apply(r.Context(), []registry.Op{{Key: k, Value: doc}})
	s.awaitShown(r.Context(), z, out.Revision)
	return out, err
}

// awaitShown waits until what was written is answered, so that who is told that
// it was written finds it there; for a moment at most, since it was written all
// the same.
func (s *Server) awaitShown(ctx context.Context, z *Zone, revision int64) {
	const moment = time.Second
	short, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	_ = s.cfg.Pool.WaitFor(short, z.Source, revision)
}

// withAddress adds the caller's address to a document that has none.
func withAddress(doc json.RawMessage, remote string) ([]byte, error) {
	if len(doc) == 0 {
		doc = json.RawMessage("{}")
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(doc, &members) != nil {
		return doc, nil // not an object: DecodeInstance says what is wrong
	}
	if members["address"] != nil || members["addresses"] != nil {
		return doc, nil
	}
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return nil, badField("instance.address", "give it", "is missing")
	}
	if members == nil {
		members = map[string]json.RawMessage{}
	}
	members["address"] = json.RawMessage(`"` + from.Addr().Unmap().WithZone("").String() + `"`)
	return json.Marshal(members)
}

// deregister answers POST /v1/deregister.
func (s *Server) deregister(r *http.Request, in api.DeregisterRequest) (any, error) {
	z, k, err := s.instanceKey(registry.KindInstance, in.Zone, in.Service, in.Instance)
	if err != nil {
		return nil, err
	}
	rec, err := z.Store.Get(r.Context(), k)
	if err != nil {
		return nil, missing(err, k)
	}
	held, err := s.holds.drop(r.Context(), k, registry.Lease.Close)
	if held || err != nil {
		return api.Written{Revision: rec.Revision}, err
	}
	rev, err := z.Store.Apply(r.Context(), []registry.Op{{Key: k}})
	return api.Written{Revision: rev}, err
}

// missing says which record is not there.
func missing(err error, k registry.Key) error {
	if !errors.Is(err, registry.ErrNotFound) {
		return err
	}
	what := "service " + quote(k.Service)
	if k.Name != "" {
		what = "instance " + quote(k.Name) + " of " + what
	}
	return &api.Error{Status: http.StatusNotFound, Message: "no " + what + " is registered", Mend: "`muster instances` lists what there is"}
}

// heartbeat answers POST /v1/heartbeat.
func (s *Server) heartbeat(r *http.Request, in api.HeartbeatRequest) (any, error) {
	z, k, err := s.instanceKey(registry.KindInstance, in.Zone, in.Service, in.Instance)
	if err != nil {
		return nil, err
	}
	ttl, held := s.holds.beat(k)
	out := api.Heartbeat{Held: held, Next: api.Duration(ttl)}
	result := health.Result{OK: !in.Failing, Output: printable(in.Output), Load: -1}
	err = s.cfg.Pool.Heartbeat(r.Context(), z.Source, k.Service, k.Name, result)
	switch {
	case err == nil:
		if due := s.heartbeatDue(r.Context(), z, k); out.Next == 0 || due < ttl {
			out.Next = api.Duration(due)
		}
	case !errors.Is(err, pool.ErrNotFound):
		return nil, err
	case !held && in.Load == nil:
		return nil, &api.Error{
			Status: http.StatusNotFound, Message: "instance " + quote(k.Name) + " of service " + quote(k.Service) + " waits for no heartbeat here",
			Mend: "register it with a ttl, or give it a check of type ttl",
		}
	}
	if in.Load == nil {
		return out, nil
	}
	value, err := registry.EncodeLoad(registry.Load{Service: k.Service, Instance: k.Name, Load: *in.Load, Active: -1})
	if err != nil {
		return nil, fieldError("load", err)
	}
	k.Kind = registry.KindLoad
	_, err = z.Store.Apply(r.Context(), []registry.Op{{Key: k, Value: value}})
	return out, err
}

// heartbeatDue is how long a heartbeat is good for the instance's ttl checks.
func (s *Server) heartbeatDue(ctx context.Context, z *Zone, k registry.Key) time.Duration {
	var due time.Duration
	info, err := s.cfg.Pool.Service(ctx, z.Source, k.Service)
	if err != nil {
		return due // gone meanwhile
	}
	for i := range info.Instances {
		if info.Instances[i].ID != k.Name {
			continue
		}
		for _, c := range info.Instances[i].Checks {
			if c.Target.Type == health.TypeTTL && (due == 0 || c.Target.Interval < due) {
				due = c.Target.Interval
			}
		}
	}
	return due
}

// printable makes one bounded line of a client's text.
func printable(s string) string {
	const longest = 200
	b := []byte(s[:min(len(s), longest)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = ' '
		}
	}
	return string(bytes.TrimSpace(b))
}

// admin answers POST /v1/admin: an administrator's word, or its withdrawal.
func (s *Server) admin(r *http.Request, in api.AdminRequest) (any, error) {
	z, k, err := s.instanceKey(registry.KindAdmin, in.Zone, in.Service, in.Instance)
	if err != nil {
		return nil, err
	}
	if k.Service != registry.AllServices {
		info, err := s.info(r.Context(), z, k.Service)
		if err != nil {
			return nil, err
		}
		if k.Name != registry.AllInstances && k.Name != registry.Freeze && !hasInstance(&info, k.Name) {
			return nil, missing(registry.ErrNotFound, k)
		}
	}
	op := registry.Op{Key: k}
	var out api.AdminSet
	if in.State != api.AdminNone {
		if op.Value, out.Until, err = adminValue(k, &in); err != nil {
			return nil, err
		}
	}
	if out.Revision, err = z.Store.Apply(r.Context(), []registry.Op{op}); err != nil {
		return nil, err
	}
	if k.Service != registry.AllServices {
		s.afterAdmin(r.Context(), z, k, in.State, &out)
	}
	return out, nil
}

// adminValue is the record of an administrator's word, and when it ends by
// itself.
func adminValue(k registry.Key, in *api.AdminRequest) (value []byte, until time.Time, err error) {
	state, err := registry.ParseAdminState(string(in.State))
	if err != nil {
		return nil, until, fieldError("state", err)
	}
	if in.For < 0 {
		return nil, until, badField("for", "give a time such as 10m", "%s is in the past", in.For)
	}
	a := registry.Admin{
		Service: k.Service, Instance: k.Name, State: state,
		Reason: printable(in.Reason), By: printable(in.By), Since: time.Now().UTC().Truncate(time.Second),
	}
	if in.For > 0 {
		// Records have whole seconds: no less than was asked for.
		a.Until = time.Now().UTC().Add(time.Duration(in.For) + time.Second - 1).Truncate(time.Second)
	}
	if value, err = registry.EncodeAdmin(a); err != nil {
		return nil, until, fieldError("state", err)
	}
	return value, a.Until, nil
}

// hasInstance reports whether an instance is registered.
func hasInstance(info *pool.ServiceInfo, id string) bool {
	for i := range info.Instances {
		if info.Instances[i].ID == id {
			return true
		}
	}
	return false
}

// afterAdmin says what has come of a word once the pool has applied it, or at
// present if that takes longer than a moment.
func (s *Server) afterAdmin(ctx context.Context, z *Zone, k registry.Key, state api.AdminState, out *api.AdminSet) {
	s.awaitShown(ctx, z, out.Revision)
	info, err := s.cfg.Pool.Service(ctx, z.Source, k.Service)
	if err != nil {
		return
	}
	out.Left = info.Counts.In
	switch state {
	case api.AdminDrain, api.AdminMaintenance, api.AdminDown:
		for i := range info.Instances {
			if in := &info.Instances[i]; k.Name == registry.AllInstances || k.Name == in.ID {
				out.SafeAfter = max(out.SafeAfter, api.SafeAfter(roundUp(in.Cached)))
			}
		}
	case api.AdminUp, api.AdminFreeze, api.AdminNone:
	}
}

// change reads a record, lets edit make its new value, and writes it unless
// somebody else did meanwhile; then it starts over. edit gets nil when there is
// no record.
func change(ctx context.Context, z *Zone, k registry.Key, edit func(old []byte) ([]byte, error)) (int64, error) {
	for try := 1; ; try++ {
		rec, err := z.Store.Get(ctx, k)
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return 0, err
		}
		value, err := edit(rec.Value)
		if err != nil {
			return 0, err
		}
		op := registry.Op{Key: k, Value: value, Create: rec.Value == nil, IfRevision: rec.Revision, KeepLease: rec.Leased}
		rev, err := z.Store.Apply(ctx, []registry.Op{op})
		if try < changeTries && (errors.Is(err, registry.ErrChanged) || errors.Is(err, registry.ErrExists)) {
			continue
		}
		return rev, err
	}
}

// weight answers POST /v1/weight.
func (s *Server) weight(r *http.Request, in api.WeightRequest) (any, error) {
	z, k, err := s.instanceKey(registry.KindInstance, in.Zone, in.Service, in.Instance)
	if err != nil {
		return nil, err
	}
	rev, err := change(r.Context(), z, k, func(old []byte) ([]byte, error) {
		if old == nil {
			return nil, missing(registry.ErrNotFound, k)
		}
		if merged, err := mergePatch(old, fmt.Appendf(nil, `{"weight":%d}`, in.Weight)); err == nil {
			return merged, nil
		}
		// A record of bare text becomes a document.
		instance, err := registry.DecodeInstance(k.Service, k.Name, old)
		if err != nil {
			return nil, fieldError("instance", err)
		}
		instance.Weight = in.Weight
		return registry.EncodeInstance(instance)
	})
	return api.Written{Revision: rev}, err
}

// setService answers POST /v1/service: it applies a merge patch (RFC 7396) to
// the service's record.
func (s *Server) setService(r *http.Request, in api.ServiceRequest) (any, error) {
	z, err := s.zone(in.Zone)
	if err != nil {
		return nil, err
	}
	name, err := foldService(z, in.Service)
	if err != nil {
		return nil, err
	}
	if err := checkMembers("patch", in.Patch, registry.ServiceMembers()); err != nil {
		return nil, err
	}
	k := registry.Key{Source: z.Source, Kind: registry.KindService, Service: name}
	rev, err := change(r.Context(), z, k, func(old []byte) ([]byte, error) {
		merged, err := mergePatch(old, in.Patch)
		if err != nil {
			return nil, badField("patch", "send a JSON object such as {\"ttl\":5}", "%v", err)
		}
		if _, err := registry.DecodeService(name, merged); err != nil {
			return nil, fieldError("patch", err)
		}
		return merged, nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Pool.WaitFor(r.Context(), z.Source, rev); err != nil {
		return nil, err
	}
	info, err := s.info(r.Context(), z, name)
	if err != nil {
		return nil, err
	}
	return serviceOf(&info), nil
}

// mergePatch applies an RFC 7396 merge patch of one level: the members of a
// service are replaced whole.
func mergePatch(doc, patch []byte) ([]byte, error) {
	members := map[string]json.RawMessage{}
	if len(doc) > 0 {
		if err := json.Unmarshal(doc, &members); err != nil {
			return nil, errors.New("the service's present record is no JSON object")
		}
	}
	var changes map[string]json.RawMessage
	if err := json.Unmarshal(patch, &changes); err != nil || changes == nil {
		return nil, errors.New("the patch is no JSON object")
	}
	for name, value := range changes {
		if string(value) == "null" {
			delete(members, name)
			continue
		}
		members[name] = value
	}
	return json.Marshal(members)
}
