// Package etcdcluster tests the built binary with an etcd of three members, each a
// process of Debian's etcd, that are killed, hang and lag: what is answered is always a
// state that the registry had, and never one from before the last. HISTORY_SECONDS says
// for how long; make history does so for ten minutes.
package etcdcluster
