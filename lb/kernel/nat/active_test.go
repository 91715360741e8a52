package nat_test

import (
	"maps"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/musterdns/muster/lb/kernel"
)

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
