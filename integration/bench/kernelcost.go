package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/musterdns/muster/integration/netlab"
)

// kernelInstanceVerb makes this program an instance.
const kernelInstanceVerb = "kernel-instance"

// kernelInstance answers questions until it is ended.
func kernelInstance(addr string) error {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			answerTCP(c)
		}()
	}
}

// ownCPU is the CPU that this process, the client, has had.
func ownCPU() (time.Duration, error) {
	var own syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	return time.Duration(own.Utime.Nano() + own.Stime.Nano()), err
}

// spent is the CPU that all else that takes part in a way has had: the instances,
// the balancer, and the kernel's own threads. Packets between machines of one kernel
// are handled in soft interrupts, which run within whoever has sent, whose on-CPU
// time has them, or else in ksoftirqd.
func (l *kernelLab) spent(w *kernelWay) (time.Duration, error) {
	procs := l.instances
	if w.proc != nil {
		procs = append(slices.Clip(procs), w.proc)
	}
	var sum time.Duration
	for _, p := range procs {
		d, err := cpu(p)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	threads, err := kernelThreads()
	return sum + threads, err
}

// kernelThreads is what the kernel's own threads have had, all of which are
// children of the second process.
func kernelThreads() (time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	n := 0
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended since
		}
		_, parent, err := parseStat(string(text))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		if parent != 2 {
			continue
		}
		text, err = os.ReadFile(filepath.Join(filepath.Dir(name), "schedstat"))
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		sum += time.Duration(ns)
		n++
	}
	if n == 0 {
		return 0, errors.New("no thread of the kernel is to be seen: this needs the machine's own /proc")
	}
	return sum, nil
}

// clockTick is the unit of /proc/stat (USER_HZ, on all machines that Linux has).
const clockTick = 10 * time.Millisecond

// machineBusy is how long all cores have not been idle, soft interrupts included.
func machineBusy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(string(text))
}

// parseBusy adds up the first line of /proc/stat (proc(5)): user, nice, system, irq
// and softirq; not idle and iowait, nor what other machines stole.
func parseBusy(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// idleTime is how long the machine is watched before the turns of a round.
const idleTime = time.Second

// idleShare is the part of a core's time that is used without the turns.
type idleShare struct {
	machine   float64   // by the whole machine
	balancers []float64 // by each way's balancer, which has more to do than to forward
}

// idle watches for a while.
func (l *kernelLab) idle(ctx context.Context) (idleShare, error) {
	read := func() (machine time.Duration, balancers []time.Duration, err error) {
		balancers = make([]time.Duration, len(l.ways))
		for i, w := range l.ways {
			if w.proc == nil {
				continue
			}
			if balancers[i], err = cpu(w.proc); err != nil {
				return 0, nil, err
			}
		}
		machine, err = machineBusy()
		return machine, balancers, err
	}
	machine, balancers, err := read()
	if err != nil {
		return idleShare{}, err
	}
	began := time.Now()
	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return idleShare{}, ctx.Err()
	}
	machineAfter, balancersAfter, err := read()
	if err != nil {
		return idleShare{}, err
	}
	took := time.Since(began).Seconds()
	share := idleShare{(machineAfter - machine).Seconds() / took, make([]float64, len(l.ways))}
	for i := range share.balancers {
		share.balancers[i] = (balancersAfter[i] - balancers[i]).Seconds() / took
	}
	return share, nil
}

// countAge is how old what Muster says of the kernel's counters may be.
const countAge = time.Second + 100*time.Millisecond

// traffic is what has passed a balancer: by its interface, and as Muster counts it.
type traffic struct{ received, sent, replyPackets, replyBytes int64 }

func (t traffic) minus(o traffic) traffic {
	return traffic{t.received - o.received, t.sent - o.sent, t.replyPackets - o.replyPackets, t.replyBytes - o.replyBytes}
}

// passed reads what has passed each way's balancer. What Muster counts may be
// as old as countAge.
func (l *kernelLab) passed(ctx context.Context) ([]traffic, error) {
	all := make([]traffic, len(l.ways))
	for i, w := range l.ways {
		var err error
		if w.machine == "" {
			continue
		}
		if all[i], err = w.passed(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return all, nil
}

func (w *kernelWay) passed(ctx context.Context) (t traffic, err error) {
	text, err := netlab.In(ctx, w.machine, "cat /proc/net/dev")
	if err != nil {
		return t, err
	}
	if t.received, t.sent, err = parseInterface(text, "eth0"); err != nil || !w.counts {
		return t, err
	}
	select {
	case <-time.After(countAge):
	case <-ctx.Done():
		return t, ctx.Err()
	}
	text, err = netlab.In(ctx, w.machine, "curl -sSf http://127.0.0.1:8653/metrics")
	if err != nil {
		return t, err
	}
	for name, to := range map[string]*int64{"packets": &t.replyPackets, "bytes": &t.replyBytes} {
		var v float64
		metric := fmt.Sprintf(`muster_proxy_kernel_reply_%s_total{listener="web"} `, name)
		_, rest, found := strings.Cut(text, metric)
		if _, err := fmt.Sscan(rest, &v); !found || err != nil {
			return t, fmt.Errorf("the metrics have no %s: %w", metric, err)
		}
		*to = int64(v)
	}
	return t, nil
}

// parseInterface reads the octets that an interface has received and sent from
// /proc/net/dev (proc(5)).
func parseInterface(text, name string) (received, sent int64, err error) {
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(before) != name {
			continue
		}
		fields := strings.Fields(after)
		if len(fields) < 9 {
			break
		}
		received, err = strconv.ParseInt(fields[0], 10, 64)
		if err == nil {
			sent, err = strconv.ParseInt(fields[8], 10, 64)
		}
		return received, sent, err
	}
	return 0, 0, fmt.Errorf("/proc/net/dev has no %s", name)
}

// limitLink gives the instances a link of the rate.
func (l *kernelLab) limitLink(ctx context.Context) error {
	for _, machine := range instanceMachines {
		if _, err := netlab.In(ctx, machine, fmt.Sprintf("tc qdisc replace dev eth0 root tbf rate %dmbit burst 256kb latency 50ms", l.o.mbit)); err != nil {
			return err
		}
	}
	return nil
}
