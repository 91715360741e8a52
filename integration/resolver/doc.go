// Package resolver holds tests of the built binary behind what clients really
// ask: unbound with a stub zone, dnsmasq with a server for the zone, dig and
// kdig. Each must see what is answered, and a change within the TTL.
package resolver
