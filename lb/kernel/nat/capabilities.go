package nat

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/musterdns/muster/lb/kernel"
)

// conntrackMax is where the kernel says how many connections it can track, in this network
// namespace.
const conntrackMax = "/proc/sys/net/netfilter/nf_conntrack_max"

// conntrackMaxLow is below what a machine that balances should have room for.
const conntrackMaxLow = 65_536

// Capabilities tries out what the plane needs for services at these addresses,
// without changing anything, and returns what is lacking; nothing if all is there.
func Capabilities(vips ...netip.Addr) []kernel.Need {
	var needs []kernel.Need
	if err := try(); err != nil {
		return append(needs, kernel.Need{
			What: fmt.Sprintf("nat: nftables does not take the rules: %v", err),
			Mend: "run with CAP_NET_ADMIN and CAP_NET_RAW (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW), on Linux 5.8 or newer with nf_tables, nft_ct, nft_nat, nft_masq, nft_hash, nft_reject and nf_conntrack_netlink",
		})
	}
	is4 := slices.ContainsFunc(vips, netip.Addr.Is4)
	is6 := slices.ContainsFunc(vips, netip.Addr.Is6)
	for _, row := range []struct {
		wanted bool
		file   string
		least  int
		need   kernel.Need
	}{
		{is4, "/proc/sys/net/ipv4/ip_forward", 1, kernel.Need{What: "nat: this machine does not forward IPv4: only its own clients are served", Mend: "sysctl -w net.ipv4.ip_forward=1"}},
		{is6, "/proc/sys/net/ipv6/conf/all/forwarding", 1, kernel.Need{What: "nat: this machine does not forward IPv6: only its own clients are served", Mend: "sysctl -w net.ipv6.conf.all.forwarding=1"}},
		{true, "/proc/sys/net/netfilter/nf_conntrack_tcp_loose", 1, kernel.Need{What: "nat: connections that another machine has opened are not taken over", Mend: "sysctl -w net.netfilter.nf_conntrack_tcp_loose=1"}},
		{true, conntrackMax, conntrackMaxLow, kernel.Need{What: fmt.Sprintf("nat: fewer than %d connections can be tracked", conntrackMaxLow), Mend: "sysctl -w net.netfilter.nf_conntrack_max=1048576"}},
	} {
		if !row.wanted {
			continue
		}
		n, err := readInt(row.file)
		switch {
		case err != nil:
			needs = append(needs, kernel.Need{What: fmt.Sprintf("nat: a setting cannot be read: %v", err), Mend: "modprobe nf_conntrack, and mount /proc"})
		case n < row.least:
			needs = append(needs, row.need)
		}
	}
	return needs
}

// try has the kernel check all rules and throw them away, in one transaction.
func try() error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }() // nothing is left to be said
	for _, f := range families() {
		s := kernel.Service{Name: "try", Protocol: kernel.TCP}
		next := newHalf(f)
		next.shape = &shape{fenced: true, dead: true} // all rules
		next.chains[chooseName(&s)], next.slots[s.Name] = &s, nil
		t := newTransaction(c, defaultTable+"-try", newHalf(f), next)
		if err := t.write(); err != nil {
			return err
		}
		t.DelTable(t.table)
	}
	if err := c.Flush(); err != nil {
		return explainError(err)
	}
	ct, err := dialConntrack()
	if err != nil {
		return err
	}
	defer ct.Close()
	return kernel.TryWake()
}

// readInt reads a setting of the kernel.
func readInt(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
