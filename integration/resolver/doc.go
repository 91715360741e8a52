// Package resolver holds tests of the built binary behind what clients really
// ask: unbound with a stub zone, dnsmasq with a server for the zone, dig and
// kdig. Each must see what is answered, and then a change of it. How soon is not
// measured here: each client has patience for three TTLs.
package resolver
