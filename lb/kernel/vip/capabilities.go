package vip

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/musterdns/muster/lb/kernel"
)

// Capabilities returns what is lacking to hold an address on an interface; nothing if
// all is there. It changes nothing.
func Capabilities(ifi string) []kernel.Need {
	var needs []kernel.Need
	if _, err := net.InterfaceByName(ifi); err != nil {
		needs = append(needs, kernel.Need{
			What: fmt.Sprintf("vip: there is no interface %s to have the address: %v", ifi, err),
			Mend: "make it, or name another in proxy.vips",
		})
	}
	for _, row := range []struct {
		capability int
		name, what string
	}{
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "the address cannot be given to " + ifi},
		{unix.CAP_NET_RAW, "CAP_NET_RAW", "the link cannot be told who has the address"},
	} {
		has, err := hasCapability(row.capability)
		if err != nil || !has {
			needs = append(needs, kernel.Need{
				What: fmt.Sprintf("vip: %s: this process has no %s", row.what, row.name),
				Mend: "run with CAP_NET_ADMIN and CAP_NET_RAW (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW)",
			})
		}
	}
	return needs
}

// hasCapability reports whether a capability, one of the first 32, is in effect.
func hasCapability(capability int) (bool, error) {
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("reading this process's capabilities: %w", err)
	}
	return data[0].Effective&(1<<capability) != 0, nil
}
