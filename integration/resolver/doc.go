// Package resolver holds tests of the built binary behind what clients really
// ask: libc on a machine whose resolv.conf names Muster alone, unbound with a
// stub zone, dnsmasq with a server for the zone, dig and kdig. Each must see
// what is answered, and a change of it within the TTL: at once where nothing is
// cached. What is signed must be believed by validating resolvers, and found
// without fault by the suites that registries and operators judge by, Zonemaster
// and dnsviz: an internet of a few addresses in network namespaces, from the root
// down to two servers of one registry (world_test.go), is what they see.
//
// The tests need Debian's packages that .ci/run lists, and the right to make a
// network namespace: root, or user namespaces for all. What is missing fails a
// test, with what to do.
package resolver
