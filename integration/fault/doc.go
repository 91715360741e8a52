// Package fault breaks what a running Muster depends on, and Muster itself, and
// sees what its clients notice. It runs the built binary and a real etcd as
// child processes, and asks over the network as a client would.
//
// What is measured is a function here, with the number of runs as an argument:
// the tests run each a few times and hold it to its limit, and integration/bench
// runs it often and prints the distribution. What only passes or fails is a
// test alone.
package fault
