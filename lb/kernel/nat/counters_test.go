package nat_test

import (
	"maps"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/kernel"
	"github.com/musterdns/muster/lb/kernel/kerneltest"
)

func TestPlane_Counts(t *testing.T) {
	l := newLab(t, 2)
	l.apply(t, l.services()...)
	conns := append(l.spread(t, vip4), l.spread(t, vip6)...)
	kerneltest.Alive(t, "counted", conns...)
	want := map[string]uint64{}
	for _, c := range conns {
		want[c.Name]++
	}
	var counters map[string]map[string]kernel.Traffic
	l.balancer.Must(func() (err error) {
		counters, err = l.plane.Counters()
		return err
	})
	for _, b := range l.backends {
		t4, t6 := counters["web4"][b.Name], counters["web6"][b.Name]
		if n := t4.Connections + t6.Connections; n != want[b.Name] {
			t.Errorf("%s: %d connections counted, want %d", b.Name, n, want[b.Name])
		}
		// Each has at least a handshake and a line each way.
		for _, c := range []kernel.Traffic{t4, t6} {
			if c.Packets < 3*c.Connections || c.Bytes < 40*c.Packets || c.ReplyPackets < 2*c.Connections || c.ReplyBytes < 40*c.ReplyPackets {
				t.Errorf("%s: %+v", b.Name, c)
			}
		}
	}
}

// Each packet is counted once, whichever of its ends is the balancer itself.
func TestPlane_CountsOnce(t *testing.T) {
	l := newLab(t, 1)
	l.balancer.Address("lo", "10.9.9.9/32")
	s := kernel.Service{Name: "dns", VIP: netip.AddrPortFrom(vip4.Addr(), 53), Protocol: kernel.UDP}
	const questions = 10
	for id, at := range map[string]*kerneltest.Machine{"10.2.0.1:5353": l.balancer, l.backends[0].addr4.String(): l.backends[0].Machine} {
		c := at.ListenPacket("udp", id)
		kerneltest.Reply(t, c, func(question []byte) []byte { return question })
		s.Instances = []kernel.Instance{{ID: id, Addr: netip.MustParseAddrPort(id), Weight: 1}}
		l.apply(t, s)
		for _, from := range []*kerneltest.Machine{l.client, l.balancer} {
			c, err := from.Dial(net.Dialer{}, "udp", "", s.VIP.String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			for range questions {
				if _, err := c.Write([]byte("?")); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Read(make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
			}
		}
		var got kernel.Traffic
		l.balancer.Must(func() error {
			all, err := l.plane.Counters()
			got = all["dns"][id]
			return err
		})
		const octets = 20 + 8 + 1 // the headers of IPv4 and UDP
		want := kernel.Traffic{
			Connections: 2, Packets: 2 * questions, Bytes: 2 * questions * octets, ReplyPackets: 2 * questions, ReplyBytes: 2 * questions * octets,
		}
		if got != want {
			t.Errorf("instance at %s: %+v, want %+v", id, got, want)
		}
	}
}

// What is counted is what is open now, of each service apart: connections that have
// ended have entries for a while, and others pass this machine too.
func TestPlane_Active(t *testing.T) {
	l := newLab(t, 2)
	other := l.web4()
	other.Name, other.VIP = "other4", netip.AddrPortFrom(vip4.Addr(), 81)
	l.apply(t, append(l.services(), other)...)
	none := map[string]int64{"backend-0": 0, "backend-1": 0}
	open := map[string]map[string]int64{"web4": maps.Clone(none), "web6": maps.Clone(none), "other4": maps.Clone(none)}
	for i := range 12 {
		for service, vip := range map[string]netip.AddrPort{"web4": vip4, "web6": vip6, "other4": other.VIP} {
			c := l.dial(t, vip)
			if i%3 > 0 {
				open[service][c.Name]++
			} else if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			} else {
				c.Close()
			}
		}
	}
	l.dial(t, l.backends[0].addr4) // by no service
	l.active(t, open)
	l.apply(t)
	l.active(t, map[string]map[string]int64{})
}

// active waits until so many connections are counted, by service and instance.
func (l *lab) active(t *testing.T, want map[string]map[string]int64) {
	t.Helper()
	var got map[string]map[string]int64
	for deadline := time.Now().Add(patience); ; {
		l.balancer.Must(func() (err error) {
			got, err = l.plane.Active()
			return err
		})
		if reflect.DeepEqual(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v connections are counted, want %v", got, want)
		}
	}
}

func TestTraffic_Since(t *testing.T) {
	before := kernel.Traffic{Connections: 2, Packets: 10, Bytes: 1000, ReplyPackets: 8, ReplyBytes: 800}
	more := kernel.Traffic{Connections: 1, Packets: 5, Bytes: 500, ReplyPackets: 4, ReplyBytes: 400}
	if got := before.Plus(more).Since(before); got != more {
		t.Errorf("%+v more than before, want %+v", got, more)
	}
	if got := more.Since(before); got != more {
		t.Errorf("of counters that have begun anew %+v counts, want %+v", got, more)
	}
}
