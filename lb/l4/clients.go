//go:build linux

package l4

import (
	"net/netip"
	"sync"
)

// ipv6Client is how much of an IPv6 address makes a client: whoever has one
// address has the network.
const ipv6Client = 64

// clients counts the connections of each client. The zero value has no bound.
type clients struct {
	max int

	mu    sync.Mutex
	count map[netip.Addr]int // only those that have some
}

func newClients(limit int) *clients { return &clients{max: limit, count: map[netip.Addr]int{}} }

// client is what is counted of an address.
func client(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(ipv6Client)
	if err != nil {
		return a // not an address: counted as it is
	}
	return p.Addr()
}

// enter counts one more connection of a client; false: it has all it may.
func (c *clients) enter(a netip.Addr) bool {
	if c.max == 0 {
		return true
	}
	key := client(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count[key] >= c.max {
		return false
	}
	c.count[key]++
	return true
}

// leave undoes enter.
func (c *clients) leave(a netip.Addr) {
	if c.max == 0 {
		return
	}
	key := client(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count[key]--; c.count[key] == 0 {
		delete(c.count, key)
	}
}
