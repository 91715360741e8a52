package vip_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel/kerneltest"
	"github.com/musterdns/muster/lb/kernel/vip"
)

func TestCapabilities(t *testing.T) {
	kerneltest.Require(t)
	m := kerneltest.New(t, "holder")
	for _, row := range []struct {
		name, ifi string
		drop      bool
		want      []string
	}{
		{"all there", "lo", false, nil},
		{"no interface", "eth7", false, []string{"no interface eth7"}},
		{"no privilege", "lo", true, []string{"no CAP_NET_ADMIN", "no CAP_NET_RAW"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			m.Must(func() error {
				if row.drop { // of this thread, which ends with this
					header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
					var none [2]unix.CapUserData
					if err := unix.Capset(&header, &none[0]); err != nil {
						return err
					}
				}
				needs := vip.Capabilities(row.ifi)
				if len(needs) != len(row.want) {
					return fmt.Errorf("lacking %+v, want %q", needs, row.want)
				}
				for i, want := range row.want {
					if !strings.Contains(needs[i].What, want) || needs[i].Mend == "" {
						return fmt.Errorf("lacking %+v, want %q", needs[i], want)
					}
				}
				return nil
			})
		})
	}
}
