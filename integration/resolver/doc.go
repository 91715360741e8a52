// Package resolver holds tests of the built binary behind what clients really
// ask: libc on a machine whose resolv.conf names Muster alone, unbound with a
// stub zone, dnsmasq with a server for the zone, dig and kdig. Each must see
// what is answered, and a change of it within the TTL: at once where nothing is
// cached.
//
// The tests need Debian's packages bind9-dnsutils, knot-dnsutils, unbound,
// dnsmasq and iproute2, and the right to make a network namespace: root, or user
// namespaces for all. What is missing fails a test, with what to do.
package resolver
