// Package etcdcluster tests the built binary with an etcd of three members, each a
// process of Debian's etcd, that are killed, hang, are cut off, compacted and restored:
// what is answered is always a state that the registry had, and never one from before
// the last.
//
// TestHistory draws its faults and changes from a seed, which it prints; HISTORY_SEED
// draws them again, though what they meet is not the same to the millisecond.
// HISTORY_SECONDS says for how long; make history does so for ten minutes.
package etcdcluster
