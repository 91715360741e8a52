// Command bench measures Muster from outside, beside other servers, and prints
// tables. `make bench` builds the binary and runs it; `go run
// ./integration/bench` lists the benchmarks.
//
// # dns: the cost of an answer
//
// A machine's own speed drifts by a factor of two with its clock, its
// neighbours and its heat, so no figure stands alone. Each server's run lies
// between two runs of an echo server (csrc/echo.c: recvmmsg and sendmmsg of 32,
// setting one bit), which is the floor for anything that answers over kernel
// sockets; the result is the ratio to the mean of those two, and of all rounds
// the median counts, printed with the least and the greatest. Rounds are
// interleaved, so that a slow minute falls on all servers alike.
//
// The server runs on core 0 and the generator (csrc/load.c) on core 1, each
// with one worker. The generator keeps a fixed number of queries outstanding
// and must have time left, which is printed: a server that waits for its
// generator gets smaller batches and looks dearer than it is. It asks from eight ports, 16
// queries in a row, as a balancer or a forwarder does; with -sources 512 each query
// that is outstanding has a port of its own, as a resolver's.
//
// CPU is on-CPU time of the server's whole process tree, from the kernel's
// schedstat files, over the answers received: unlike the rate it does not
// suffer from what else the machine does. It contains the kernel's work for
// the server's own system calls; what the kernel does for a datagram on its way
// in is the generator's, as on a real machine it is the network card's core.
//
// All servers serve the same zone: services of some instances each. A asks for
// all addresses of a service; mixed asks for SRV in a fifth of the queries.
// Muster answers from instances registered in an etcd; the others from a
// generated zone file. Knot, NSD and gdnsd take part when they are installed.
//
// RSS is of the process tree after the load; heap is what Muster's own metrics
// say.
//
// # cores: what a second worker gains
//
// The echo and Muster, each with one worker and with two, on two cores. So that those who
// ask take no more from two workers than from one, everyone has a control group: a
// server gets 0.4 of a core for each worker, and either core has a generator that gets
// half of it. What two workers may gain is then twice the answers, less what they take
// from each other by caches and the kernel's locks; that is compared with what the
// echo's two take.
//
// # transports: the cost of an answer over a stream
//
// As dns, over kept connections, without the echo: each server has a turn in each
// round, and ratios are to Muster's in the same. The generator for TCP and TLS is this
// program, in a process of its own, that for HTTPS is h2load. It may be what limits the
// rate, for all servers alike, as CPU counts, but for how many questions a server finds
// when it looks. Debian's Knot answers over TCP only.
//
// # attack: floods, slow clients, resets
//
// Muster alone, as in dns, with a signed zone. Each kind of question is measured as
// there; a flood is sent at a rate, twice what was answered before, whatever comes
// back. What is left to others is counted from outside.
//
// # l7: the cost of an HTTP exchange
//
// Each proxy runs on core 0 with one worker before one instance, which is part
// of this program, as the clients are. Turns are interleaved as above; CPU is
// that of the proxy's process tree over the requests, and the ratio is to nginx
// in the same round. Latencies are measured at a fixed rate, each from the
// moment at which its request was due.
//
// # l4: the cost of what a proxy of TCP carries
//
// As l7, beside HAProxy with splicing, one thread each.
//
// # kernel: what a balancer adds to a connection
//
// Client, instances and balancers are machines on one link: network namespaces,
// so that one kernel does the work of all. Ways take turns as above: a router that
// does nothing else, Muster's modes nat, dsr and tcp (transparent, and as a process
// that has both ends), HAProxy, and nftables' rules written by hand, which are the least
// that translating addresses costs in this kernel. Those and nat have turns as by default,
// where the instance's way to the client leads through the balancer, and masquerading,
// for instances that know nothing of it. What a way costs is the
// CPU of all that takes part in it over the connections, less what the balancer's
// process has in a second without load; what the balancer adds is its difference to
// the direct route, which has a turn before and after each.
//
// CPU is on-CPU time (schedstat) of client, instances and balancer, and of the
// kernel's own threads. That has the soft interrupts: a packet to another namespace
// is handled within the sender's system call, or by ksoftirqd; a kernel that
// accounts for interrupts apart (CONFIG_IRQ_TIME_ACCOUNTING) would take them out of
// it, which the column of the whole machine would show: it is the difference of
// /proc/stat, less what the machine does in a second without load in each round, by
// ticks and with whatever else runs.
//
// Downloads are compared by rate, once with nothing but the CPU as their limit,
// which all machines share here, and once with a link of the instances' that is.
// The octets on the balancer's interface say what passed it.
//
// # failover: an instance fails behind a proxy
//
// Requests come at a fixed rate, whether those before are answered or not, and
// latencies count from the moment at which each was due. Instances are
// processes; each turn of a proxy has a lab of its own, and the proxies take
// turns with each fault. All that check do so at the same intervals. HAProxy
// has redispatch, retries of all that may be retried, observed traffic and ended
// sessions; nginx, which has no checks, its next upstream and max_fails. What a
// client sees fail counts, with the moment at which it knew.
//
// # push: what a change is to subscribers of DNS Push
//
// A thousand subscribers, each with a connection over TLS, wait in this process, on the
// same cores as the server, so that their work is in the times too. The
// CPU of the server is counted in two times without a change, before there are
// subscribers and with all of them.
//
// # changes, balance: the proxy alone
//
// changes puts and deletes instances of a service in etcd, all of which go on
// running, while requests come at a fixed rate and tunnels and downloads are
// open; none may fail or be cut. balance counts who answers under each policy,
// and what was under way at once at each instance, as the instances counted it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

// benchmark is one thing to measure.
type benchmark struct {
	name, summary string
	run           func(ctx context.Context, args []string, out io.Writer) error
}

// benchmarks are what can be asked for, in the order of the list.
var benchmarks = []benchmark{
	{"dns", "CPU and rate of answers beside a C echo and other servers", runDNS},
	{"cores", "what a second worker gains, beside the C echo's", runCores},
	{"transports", "CPU of answers over TCP, TLS and HTTPS beside other servers", runTransports},
	{"attack", "floods, slow clients and resets, and what they leave to others", runAttack},
	{"l7", "CPU and latency of HTTP exchanges beside nginx, HAProxy and Caddy", runL7},
	{"l4", "CPU and memory of a proxy of TCP beside HAProxy", runL4},
	{"kernel", "CPU of connections and rate of downloads through nat, dsr and the proxies, beside a direct route", runKernel},
	{"failover", "failed requests and latency around an instance that fails, beside HAProxy and nginx", runFailover},
	{"changes", "requests, tunnels and downloads while the members of a service change", runChanges},
	{"balance", "how each policy spreads requests through the proxy, against its bound", runBalance},
	{"start", "muster dev from its start to the first right answer", runTimes("start", "muster dev to the first answer with all samples", 20, 0.5, time.Second, fault.Start)},
	{"put", "a put in etcd to the first right answer", runTimes("put", "a put's return to the first right answer", 1000, 0.99, 10*time.Millisecond, fault.Put)},
	{"push", "a put in etcd to the message at 1,000 subscribers of DNS Push, and what they cost", runPush},
	{"lease", "a lost lease's event in etcd to the changed answer", runTimes("lease", "etcd's deletion event to the changed answer", 100, 1, 10*time.Millisecond, fault.Lease)},
	{"kill", "kill -9 of an instance to the last wrong answer", runKill},
	{"checks", "CPU of a health check, beside gdnsd's", runChecks},
	{"share", "checks of three and four servers of one registry, and the death of one", runShare},
	{"outage", "answers while etcd is away, and Muster's start without it", runOutage},
	{"restart", "Muster's start from a snapshot of 100,000 instances, after a crash", runTimes("restart", "start without etcd, from a snapshot of 100,000 instances, to the first right answer", 10, 1, time.Second, restart)},
	{"clock", "a jump of the server's clock by an hour and a year: answers, TSIG, signatures", runClock},
	{"hostile", "good services among hostile keys", runHostile},
	{"scale", "load, memory and the cost of a change at 100,000 instances", runScale},
}

func main() {
	if fault.Backend(os.Args) {
		return
	}
	if len(os.Args) > 1 && os.Args[1] == streamLoadVerb {
		if err := streamLoadMain(os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == kernelInstanceVerb {
		fmt.Fprintln(os.Stderr, "bench:", kernelInstance(os.Args[2]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run runs the benchmark that args name.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		for _, b := range benchmarks {
			if b.name == args[0] {
				return b.run(ctx, args[1:], out)
			}
		}
	}
	fmt.Fprintln(out, "usage: go run ./integration/bench NAME [-h] [flags]")
	for _, b := range benchmarks {
		fmt.Fprintf(out, "  %-8s %s\n", b.name, b.summary)
	}
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("no benchmark %q", args[0])
}
