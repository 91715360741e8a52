package nat

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel"
)

// Active counts what is connected now, by service and id of the instance: over TCP
// the connections that are open, over UDP the flows that conntrack has not
// forgotten. It reads the whole table of connections, entry by entry, which takes
// a second for some 500,000 of them; other calls need not wait.
func (p *Plane) Active() (map[string]map[string]int64, error) {
	p.mu.Lock()
	services := maps.Clone(p.services) // whose instances nobody writes to
	p.mu.Unlock()
	// A way to an instance; two services may have the same instance.
	type way struct {
		vip, instance netip.AddrPort
		protocol      kernel.Protocol
	}
	counts := map[way]*int64{}
	for _, s := range services {
		for i := range s.Instances {
			counts[way{s.VIP, s.Instances[i].Addr, s.Protocol}] = new(int64)
		}
	}
	err := eachFlow(services, func(fl *flow, protocol kernel.Protocol) {
		if n := counts[way{fl.vip, fl.instance, protocol}]; n != nil && (fl.established || protocol == kernel.UDP) {
			*n++
		}
	})
	if err != nil {
		return nil, fmt.Errorf("nat: counting connections: %w", err)
	}
	out := map[string]map[string]int64{}
	for name, s := range services {
		out[name] = map[string]int64{}
		for i := range s.Instances {
			out[name][s.Instances[i].ID] = *counts[way{s.VIP, s.Instances[i].Addr, s.Protocol}]
		}
	}
	return out, nil
}

// eachFlow calls do with every entry of the families that services have.
func eachFlow(services map[string]kernel.Service, do func(*flow, kernel.Protocol)) error {
	for _, f := range families() {
		wanted := false
		for _, s := range services {
			wanted = wanted || f.of(s.VIP.Addr())
		}
		if !wanted {
			continue
		}
		c, err := dialConntrack()
		if err != nil {
			return err
		}
		err = c.each(&f, do)
		_ = c.Close() // nothing is left to be said
		if err != nil {
			return err
		}
	}
	return nil
}

// dumpBuffer is more than the kernel puts into one message of a dump (32 KiB).
const dumpBuffer = 64 << 10

// each reads the table of a family. Its entries are looked at as they come: as
// many as a table may have are not to be kept.
func (c *conntrack) each(f *family, do func(*flow, kernel.Protocol)) error {
	m, err := f.request(ctGet, uint16(netlink.Dump), nil)
	if err != nil {
		return err
	}
	if _, err := c.Send(m); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, dumpBuffer)
	for {
		var n int
		var failed error
		if err := raw.Read(func(fd uintptr) bool {
			n, failed = unix.Read(int(fd), buf)
			return failed != unix.EAGAIN
		}); err != nil {
			return err
		}
		if failed != nil && failed != unix.EINTR {
			return failed
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:max(n, 0)])
		if err != nil {
			return err
		}
		for i := range messages {
			if ended, err := dumpEnds(&messages[i]); ended {
				return err
			}
			protocol := protocolOf(messages[i].Data)
			fl := parseFlow(messages[i].Data, f, protocol)
			do(&fl, protocol)
		}
	}
}

// dumpEnds reports whether a message is the last of a dump, and how that has ended.
func dumpEnds(m *syscall.NetlinkMessage) (bool, error) {
	if m.Header.Type != unix.NLMSG_DONE && m.Header.Type != unix.NLMSG_ERROR {
		return false, nil
	}
	if len(m.Data) >= 4 {
		if code := int32(binary.NativeEndian.Uint32(m.Data)); code < 0 {
			return true, syscall.Errno(-code)
		}
	}
	return true, nil
}

// protocolOf is an entry's transport protocol; 0 if it says none.
func protocolOf(data []byte) kernel.Protocol {
	number := find(find(find(data[min(4, len(data)):], ctaTupleOrig), ctaTupleProto), ctaProtoNum)
	if len(number) != 1 {
		return 0
	}
	return kernel.Protocol(number[0])
}
