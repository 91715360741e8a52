package etcd

import (
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/musterdns/muster/registry"
)

// native is the format of Muster's own keys.
type native struct{ registry.Keyspace }

// canonical is the spelling in lower case.
func (n native) canonical(key registry.Key, _ string) string {
	if key.Kind == registry.KindService {
		return n.Dir(key.Kind) + key.Service
	}
	if key.Kind == registry.KindMember || key.Kind == registry.KindRoute {
		return n.Dir(key.Kind) + key.Name
	}
	if key.Kind == registry.KindHealth {
		return n.Dir(key.Kind) + key.Service + "/" + key.Name + "/" + key.Sub
	}
	return n.Dir(key.Kind) + key.Service + "/" + key.Name
}

// record decodes a value into the batch, and returns the fields that are not known. What
// servers write of themselves has such fields while they are upgraded: nobody is told.
func (native) record(b *registry.Batch, key registry.Key, kv *mvccpb.KeyValue) (ignored string, err error) {
	switch key.Kind {
	case registry.KindInstance:
		in, err := registry.DecodeInstance(key.Service, key.Name, kv.Value)
		if err != nil {
			return "", err
		}
		b.Instances = append(b.Instances, stamped(in, kv))
		return in.Ignored, nil
	case registry.KindService:
		s, err := registry.DecodeService(key.Service, kv.Value)
		if err != nil {
			return "", err
		}
		s.Revision = kv.ModRevision
		b.Services = append(b.Services, s)
		return s.Ignored, nil
	case registry.KindAdmin:
		a, err := registry.DecodeAdmin(key.Service, key.Name, kv.Value)
		if err != nil {
			return "", err
		}
		a.Revision = kv.ModRevision
		b.Admin = append(b.Admin, a)
		return a.Ignored, nil
	case registry.KindLoad:
		l, err := registry.DecodeLoad(key.Service, key.Name, kv.Value)
		if err != nil {
			return "", err
		}
		l.Revision, l.At = kv.ModRevision, time.Now()
		b.Loads = append(b.Loads, l)
		return l.Ignored, nil
	case registry.KindRoute:
		r, err := registry.DecodeRoute(key.Name, kv.Value)
		if err != nil {
			return "", err
		}
		r.Revision = kv.ModRevision
		b.Routes = append(b.Routes, r)
		return r.Ignored, nil
	case registry.KindMember, registry.KindHealth, registry.KindUnknown:
	}
	return "", serverRecord(b, key, kv)
}

// serverRecord decodes what a server has written.
func serverRecord(b *registry.Batch, key registry.Key, kv *mvccpb.KeyValue) error {
	switch key.Kind {
	case registry.KindMember:
		m, err := registry.DecodeMember(key.Name, kv.Value)
		if err != nil {
			return err
		}
		b.Members = append(b.Members, m)
	case registry.KindHealth:
		r, err := registry.DecodeReport(key.Service, key.Name, key.Sub, kv.Value)
		if err != nil {
			return err
		}
		r.Revision = kv.ModRevision
		b.Reports = append(b.Reports, r)
	default:
	}
	return nil
}

// stamped is an instance with what its key tells beside its value.
func stamped(in registry.Instance, kv *mvccpb.KeyValue) registry.Instance {
	in.Incarnation, in.Revision, in.Leased = kv.CreateRevision, kv.ModRevision, kv.Lease != 0
	return in
}
