package nat

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/musterdns/muster/lb/kernel"
)

// Conntrack is how full the table of connections is. When it is full, new
// connections through this machine fail, all of them: watch Count against Max.
type Conntrack struct {
	Count, Max int // entries; Max is net.netfilter.nf_conntrack_max
	// InsertFailed counts connections that found no place, Dropped packets that
	// for this reason went nowhere, EarlyDropped entries that made place.
	InsertFailed, Dropped, EarlyDropped uint64
}

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

// Where the kernel says how full the table is, in this network namespace.
const (
	conntrackCount = "/proc/sys/net/netfilter/nf_conntrack_count"
	conntrackMax   = "/proc/sys/net/netfilter/nf_conntrack_max"
)

// ReadConntrack reads how full this network namespace's table is.
func ReadConntrack() (Conntrack, error) {
	var out Conntrack
	for _, row := range []struct {
		file string
		to   *int
	}{{conntrackCount, &out.Count}, {conntrackMax, &out.Max}} {
		n, err := readInt(row.file)
		if err != nil {
			return out, fmt.Errorf("nat: reading the size of conntrack: %w", err)
		}
		*row.to = n
	}
	c, err := dialConntrack()
	if err != nil {
		return out, err
	}
	defer c.Close()
	f := families()[0]
	m, err := f.request(ctGetStatsCPU, uint16(netlink.Dump), nil)
	if err != nil {
		return out, err
	}
	messages, err := c.Execute(m)
	if err != nil {
		return out, fmt.Errorf("nat: reading conntrack's counters: %w", err)
	}
	for _, m := range messages { // one for each processor
		for _, row := range []struct {
			kind uint16
			to   *uint64
		}{{statsInsertFail, &out.InsertFailed}, {statsDrop, &out.Dropped}, {statsEarlyDrop, &out.EarlyDropped}} {
			if v := find(m.Data[min(4, len(m.Data)):], row.kind); len(v) == 4 {
				*row.to += uint64(binary.BigEndian.Uint32(v))
			}
		}
	}
	return out, nil
}

// readInt reads a setting of the kernel.
func readInt(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
