package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/musterdns/muster/integration/netlab"
)

// The limits: a connection through the kernel may cost so much of one through the
// process, and a download by direct server return must have so much of the rate of
// a direct one. Where nftables' own translation takes more than that, mode nat may
// cost so much of it. What a balancer that returns directly sends of a download is
// acknowledgements.
const (
	kernelCostMax = 0.2
	natOverNFTMax = 1.5
	dsrRateMin    = 0.95
	dsrSentMax    = 0.05
)

// kernelOptions is how the kernel's modes are measured.
type kernelOptions struct {
	muster        string
	rounds        int
	clients, each int // connections of a turn
	mib           int // of a download
	mbit          int // of the instances' link, while downloads are measured beside it
}

func kernelFlags(args []string, out io.Writer) (o kernelOptions, err error) {
	flags, muster := faultFlags("kernel", out)
	flags.IntVar(&o.rounds, "rounds", 15, "interleaved `number` of turns; the median counts")
	flags.IntVar(&o.clients, "clients", 8, "`number` of clients at once")
	flags.IntVar(&o.each, "each", 250, "`number` of connections of each, a turn")
	flags.IntVar(&o.mib, "mib", 128, "`size` of a download, MiB")
	flags.IntVar(&o.mbit, "mbit", 1000, "`rate` of the instances' link, Mbit/s, for the second round of downloads")
	if err := parse(flags, args); err != nil {
		return o, err
	}
	o.muster = *muster
	switch {
	case o.rounds < 1 || o.clients < 1 || o.each < 1 || o.mib < 1 || o.mbit < 1:
		return o, errors.New("rounds, clients, each, mib and mbit must be above 0")
	case o.muster == "":
		return o, errNoMuster
	case runtime.NumCPU() < 2 && !netlab.Inside():
		return o, errors.New("this needs two cores: one for the balancers, one for clients and instances")
	}
	return o, nil
}

// runKernel measures the modes of the kernel; see the package's comment.
func runKernel(ctx context.Context, args []string, out io.Writer) error {
	o, err := kernelFlags(args, out)
	if err != nil {
		return err
	}
	if !netlab.Inside() {
		return enterLab(ctx, args, out)
	}
	l, err := newKernelLab(ctx, o)
	if err != nil {
		return err
	}
	defer l.close()
	fmt.Fprintf(out, "balancers on core %d, client and instances on core %d; %d rounds of %d connections; medians (least-greatest) of ratios in one round\n",
		serverCore, loadCore, o.rounds, o.clients*o.each)
	for _, w := range l.ways {
		if w.note != "" {
			fmt.Fprintf(out, "%s: %s\n", w.name, w.note)
		}
	}
	var missed *limitError
	err = l.measureConnections(ctx, out)
	if err != nil && !errors.As(err, &missed) {
		return err
	}
	fmt.Fprintln(out)
	return errors.Join(err, l.measureDownloads(ctx, out))
}

// limitError is of a limit that was missed: what else there is to measure is measured.
type limitError struct{ error }

// enterLab runs this benchmark again where it can make machines.
func enterLab(ctx context.Context, args []string, out io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("this needs root: CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_SYS_ADMIN")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := netlab.Enter(ctx, append([]string{"taskset", "-c", fmt.Sprint(loadCore), self, "kernel"}, args...)...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends what it has started
	return cmd.Run()
}

// connectionCost is what one turn of connections took, us a connection.
type connectionCost struct {
	cpu     float64 // of all that took part
	machine float64 // of what the whole machine did more than when idle
}

// wayCosts are those of the turns of one way.
type wayCosts struct {
	cpu, machine []float64
	beyond       []float64 // the direct route before and after
	ratio        []float64 // of that to the process's
}

// measureConnections has each way's turns with new connections, each between two
// of the direct route, and prints a line for each.
func (l *kernelLab) measureConnections(ctx context.Context, out io.Writer) error {
	costs := make([]wayCosts, len(l.ways))
	for round := range l.o.rounds + 1 {
		if err := l.connectionRound(ctx, costs); err != nil {
			return err
		}
		if round == 0 {
			clear(costs) // it warmed up
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "a new connection\tCPU us, all\tbeyond direct\tof proxy's\tlimit\twhole machine, less idle")
	var missed error
	for i, way := range l.ways {
		c, limit := &costs[i], ""
		if way.limited {
			limit = fmt.Sprintf("%.2f", kernelCostMax)
			missed = errors.Join(missed, l.limit(out, costs, i))
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.3f (%.3f-%.3f)\t%s\t%.0f\n", way.name, median(c.cpu), median(c.beyond),
			median(c.ratio), slices.Min(c.ratio), slices.Max(c.ratio), limit, median(c.machine))
	}
	return missed
}

// limit is an error if a way costs too much of the proxy's, and prints what nftables
// itself costs if that is more already.
func (l *kernelLab) limit(out io.Writer, costs []wayCosts, way int) error {
	got, floor := median(costs[way].ratio), median(costs[l.index(nftByHand)].ratio)
	if got <= kernelCostMax {
		return nil
	}
	name := l.ways[way].name
	if name == "nat" && got <= natOverNFTMax*floor {
		fmt.Fprintf(out, "nat misses its limit of %.2f: it is %.2f of proxy's, nftables' own translation %.2f\n", kernelCostMax, got, floor)
		return nil
	}
	return &limitError{fmt.Errorf("%s: a new connection costs %.2f of proxy's (nftables' own translation %.2f): more than the limit of %.2f", name, got, floor, kernelCostMax)}
}

// connectionRound gives each way its turn.
func (l *kernelLab) connectionRound(ctx context.Context, costs []wayCosts) error {
	idle, err := l.idle(ctx)
	if err != nil {
		return err
	}
	direct, err := l.connect(ctx, 0, idle)
	if err != nil {
		return err
	}
	beyond := make([]float64, len(l.ways))
	for i, w := range l.ways {
		c := direct
		if i > 0 {
			if c, err = l.connect(ctx, i, idle); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			before := direct
			if direct, err = l.connect(ctx, 0, idle); err != nil {
				return err
			}
			beyond[i] = c.cpu - (before.cpu+direct.cpu)/2
		}
		costs[i].cpu = append(costs[i].cpu, c.cpu)
		costs[i].machine = append(costs[i].machine, c.machine)
	}
	proxy := beyond[l.index("proxy")]
	for i := range l.ways {
		costs[i].beyond = append(costs[i].beyond, beyond[i])
		costs[i].ratio = append(costs[i].ratio, beyond[i]/proxy)
	}
	return nil
}

// connect has the clients connect, ask and go by a way, one connection after the
// other. To look at the others takes this process time, which is left out.
func (l *kernelLab) connect(ctx context.Context, way int, idle idleShare) (c connectionCost, err error) {
	w := l.ways[way]
	before, err := l.spent(w)
	if err != nil {
		return c, err
	}
	busy, err := machineBusy()
	if err != nil {
		return c, err
	}
	own, err := ownCPU()
	if err != nil {
		return c, err
	}
	began := time.Now()
	err = together(l.o.clients, func(int) error {
		buf := make([]byte, l4Small)
		for range l.o.each {
			if err := connectOnce(ctx, w.addr, buf); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	took := time.Since(began)
	ownAfter, err := ownCPU()
	if err != nil {
		return c, err
	}
	busyAfter, err := machineBusy()
	if err != nil {
		return c, err
	}
	after, err := l.spent(w)
	if err != nil {
		return c, err
	}
	n := float64(l.o.clients * l.o.each)
	spent := after - before + ownAfter - own
	c.cpu = (float64(spent.Microseconds()) - idle.balancers[way]*float64(took.Microseconds())) / n
	c.machine = (float64((busyAfter - busy).Microseconds()) - idle.machine*float64(took.Microseconds())) / n
	return c, nil
}

// connectOnce makes one connection with one small request. It ends with a reset, or
// ports would run out.
func connectOnce(ctx context.Context, addr string, buf []byte) error {
	c, err := (&net.Dialer{Timeout: startTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := errors.Join(c.SetDeadline(time.Now().Add(startTimeout)), c.(*net.TCPConn).SetLinger(0)); err != nil {
		return err
	}
	return askTCP(c, askSmall, buf)
}

// measureDownloads compares the rates of downloads, with the machine's CPU as what
// limits them and then with a link that does.
func (l *kernelLab) measureDownloads(ctx context.Context, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "downloads of %d MiB\tMbit/s\tof direct\tlimit\tbalancer received, sent\treplies it counted\n", l.o.mib)
	for _, limited := range []bool{false, true} {
		title := "by CPU"
		if limited {
			title = fmt.Sprintf("by a link of %d Mbit/s", l.o.mbit)
			if err := l.limitLink(ctx); err != nil {
				return err
			}
		}
		if err := l.downloads(ctx, title, limited, w); err != nil {
			return err
		}
	}
	return nil
}

// downloads has each way's turns with downloads; limit is whether the rate is held
// to its limit.
func (l *kernelLab) downloads(ctx context.Context, title string, limit bool, out io.Writer) error {
	rates := make([][]float64, len(l.ways))
	before, err := l.passed(ctx)
	if err != nil {
		return err
	}
	for round := range l.o.rounds + 1 {
		for i, w := range l.ways {
			rate, err := l.download(ctx, w)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			if round > 0 { // the first warms up
				rates[i] = append(rates[i], rate)
			}
		}
	}
	after, err := l.passed(ctx)
	if err != nil {
		return err
	}
	payload := float64(l.o.mib<<20) * float64(l.o.rounds+1)
	var missed error
	for i, way := range l.ways {
		passed := after[i].minus(before[i])
		ratios := make([]float64, len(rates[i]))
		for round := range ratios {
			ratios[round] = rates[i][round] / rates[0][round]
		}
		bound, between := "", ""
		if limit && way.name == "dsr" {
			bound = fmt.Sprintf("%.2f", dsrRateMin)
			if got := median(ratios); got < dsrRateMin {
				missed = fmt.Errorf("dsr: a download has %.2f of the direct rate: less than the limit of %.2f", got, dsrRateMin)
			}
			if part := float64(passed.sent) / payload; part > dsrSentMax {
				missed = errors.Join(missed, fmt.Errorf("dsr: the balancer has sent %.2f of the payload: replies pass it", part))
			}
		}
		if way.machine != "" {
			between = fmt.Sprintf("%.2f %%, %.2f %% of the payload", 100*float64(passed.received)/payload, 100*float64(passed.sent)/payload)
		}
		counted := ""
		if way.counts {
			counted = fmt.Sprintf("%d packets, %d octets", passed.replyPackets, passed.replyBytes)
		}
		fmt.Fprintf(out, "%s, %s\t%.0f\t%.3f (%.3f-%.3f)\t%s\t%s\t%s\n", way.name, title, median(rates[i]),
			median(ratios), slices.Min(ratios), slices.Max(ratios), bound, between, counted)
	}
	return missed
}

// download asks for so many MiB over one connection, and returns the rate, Mbit/s.
func (l *kernelLab) download(ctx context.Context, w *kernelWay) (float64, error) {
	c, err := (&net.Dialer{Timeout: startTimeout}).DialContext(ctx, "tcp", w.addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Duration(l.o.mib)*time.Second + startTimeout)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(c, strings.Repeat(strings.Repeat(string(rune(askLarge)), l4Question), l.o.mib)); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	began := time.Now()
	for left := l.o.mib * l4Large; left > 0; {
		n, err := c.Read(buf[:min(left, len(buf))])
		if err != nil {
			return 0, err
		}
		left -= n
	}
	return float64(l.o.mib*l4Large) * 8 / time.Since(began).Seconds() / 1e6, nil
}
