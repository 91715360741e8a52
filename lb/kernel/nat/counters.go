package nat

import (
	"fmt"

	"github.com/google/nftables"

	"github.com/musterdns/muster/lb/kernel"
)

// Counters reads what was counted, by service and id of the instance. Of an
// instance that serves two services at one address, port and protocol, both have
// the traffic of both. It begins anew when an instance is listed again after it
// was not.
func (p *Plane) Counters() (map[string]map[string]kernel.Traffic, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	counted := map[string]kernel.Traffic{}
	err := p.talk(func(c *nftables.Conn) error {
		for _, h := range p.halves {
			if !h.exists {
				continue
			}
			for _, name := range []string{setConnections, setSent, setReplied} {
				table := &nftables.Table{Name: p.config.Table, Family: h.table}
				elements, err := c.GetSetElements(&nftables.Set{Table: table, Name: name})
				if err != nil {
					return fmt.Errorf("nat: reading counters %s: %w", name, err)
				}
				for i := range elements {
					count(counted, name, &elements[i])
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]kernel.Traffic{}
	for _, s := range p.services {
		out[s.Name] = map[string]kernel.Traffic{}
		for i := range s.Instances {
			out[s.Name][s.Instances[i].ID] = counted[endpoint(s.Instances[i].Addr, s.Protocol)]
		}
	}
	return out, nil
}

// count enters one counter.
func count(counted map[string]kernel.Traffic, set string, e *nftables.SetElement) {
	if e.Counter == nil {
		return
	}
	t := counted[string(e.Key)]
	switch set {
	case setConnections:
		t.Connections = e.Counter.Packets
	case setSent:
		t.Packets, t.Bytes = e.Counter.Packets, e.Counter.Bytes
	case setReplied:
		t.ReplyPackets, t.ReplyBytes = e.Counter.Packets, e.Counter.Bytes
	}
	counted[string(e.Key)] = t
}
