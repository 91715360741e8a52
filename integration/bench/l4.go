package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/musterdns/muster/integration/program"
)

// A question has a fixed size, and its first octet says how large the answer is
// to be.
const (
	l4Question = 100
	l4Small    = 200
	l4Large    = 1 << 20
	askSmall   = 's'
	askLarge   = 'l'
	l4IdleName = "idle connections"
	l4Idle     = 9_000 // with a limit of 20,000 descriptors that many go through
)

// l4Kind is one kind of load through a proxy of TCP.
type l4Kind struct {
	name, unit string
	limit      float64 // of the ratio to HAProxy; 0: none
	// clients connect n times each, and ask so many times on each connection.
	clients, connects, asks int
	ask                     byte
}

// units is how many units a turn has.
func (k *l4Kind) units() int { return k.clients * k.connects * k.asks }

var l4Kinds = []l4Kind{
	{"100 octets, 200 back, 32 connections", "request", 1.5, 32, 1, 1000, askSmall},
	{"the same, one connection", "request", 1.5, 1, 1, 10_000, askSmall},
	{"1 MiB back, 4 connections", "MiB", 1.0, 4, 1, 600, askLarge},
	{"a connection for each small request", "connection", 1.4, 8, 500, 1, askSmall},
}

// l4IdleLimit is the limit of the ratio of the memory of idle connections.
const l4IdleLimit = 1.5

// l4Proxies are those that take part; the first is the base of the ratios.
var l4Proxies = []peerProxy{
	{"haproxy", "haproxy", "apt-get install haproxy", configured("haproxy.cfg", haproxyTCPText, "-db", "-f")},
	{"muster", "", "", startMuster("tcp")},
}

const haproxyTCPText = `# %[1]s, port %[4]s
global
  maxconn 9950
  maxpipes 40
  tune.pipesize 262144
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 10m
  timeout server 10m
  option splice-request
  option splice-response
listen web
  bind %[2]s
  server a %[3]s
`

// runL4 measures what a proxy of TCP costs; see the package's comment.
func runL4(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("l4", out)
	rounds := flags.Int("rounds", 7, "interleaved `number` of turns; the median counts")
	only := flags.String("only", "", "only the loads whose name has this `text`")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *rounds < 1 {
		return fmt.Errorf("-rounds %d: must be above 0", *rounds)
	}
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	instance, err := startInstance(answerTCP)
	if err != nil {
		return err
	}
	defer instance.stop()
	up := func(addr string) error { return l4Kinds[0].turn(ctx, addr, 1, 1) }
	all, stop, err := startProxies(ctx, l4Proxies, up, l7Options{muster: *muster}, dir, instance.addr(), out)
	defer stop()
	if err != nil {
		return err
	}
	if len(all) != len(l4Proxies) {
		return errors.New("there is nobody to compare with")
	}
	fmt.Fprintf(out, "proxies on core %d with one thread for traffic; %d rounds; ratios are to %s in the same round; medians (least-greatest)\n", serverCore, *rounds, all[0].name)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "load\t%s\t%s\tratio\tlimit\n", all[0].name, all[1].name)
	for k := range l4Kinds {
		if !strings.Contains(l4Kinds[k].name, *only) {
			continue
		}
		if err := l4Kinds[k].measure(ctx, all, *rounds, w); err != nil {
			return err
		}
	}
	if !strings.Contains(l4IdleName, *only) {
		return nil
	}
	return l4Memory(ctx, all, w)
}

// measure gives both their turns with one kind of load, and prints a line.
func (k *l4Kind) measure(ctx context.Context, all []*l7Contender, rounds int, out io.Writer) error {
	var cost [2][]float64
	var ratios []float64
	for round := range rounds + 1 {
		var us [2]float64
		for i, c := range all {
			before, err := cpu(c.proc)
			if err != nil {
				return err
			}
			if err := k.turn(ctx, c.addr, k.connects, k.asks); err != nil {
				return fmt.Errorf("%s: %s: %w", c.name, k.name, err)
			}
			after, err := cpu(c.proc)
			if err != nil {
				return err
			}
			us[i] = float64((after - before).Nanoseconds()) / 1000 / float64(k.units())
		}
		if round == 0 {
			continue // it warms up
		}
		for i := range all {
			cost[i] = append(cost[i], us[i])
		}
		ratios = append(ratios, us[1]/us[0])
	}
	fmt.Fprintf(out, "%s\t%.1f us/%s\t%.1f us/%s\t%.2f (%.2f-%.2f)\t%.1f\n", k.name, median(cost[0]), k.unit, median(cost[1]), k.unit,
		median(ratios), slices.Min(ratios), slices.Max(ratios), k.limit)
	return nil
}

// turn has each client connect, and ask on each connection.
func (k *l4Kind) turn(ctx context.Context, addr string, connects, asks int) error {
	return together(k.clients, func(int) error {
		buf := make([]byte, 256<<10)
		for range connects {
			c, err := dialAsker(ctx, addr, nil)
			if err != nil {
				return err
			}
			for range asks {
				if err = askTCP(c.c, k.ask, buf); err != nil {
					break
				}
			}
			if tcp, ok := c.c.(*net.TCPConn); ok && connects > 1 {
				_ = tcp.SetLinger(0) // or ports run out
			}
			c.c.Close()
			if err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// askTCP sends a question and reads its answer.
func askTCP(c net.Conn, ask byte, buf []byte) error {
	buf[0] = ask
	if _, err := c.Write(buf[:l4Question]); err != nil {
		return err
	}
	for left := sizeOf(ask); left > 0; {
		n, err := c.Read(buf[:min(left, len(buf))])
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func sizeOf(ask byte) int {
	if ask == askLarge {
		return l4Large
	}
	return l4Small
}

// l4Memory measures what connections cost that say nothing.
func l4Memory(ctx context.Context, all []*l7Contender, out io.Writer) error {
	var each [2]float64
	buf := make([]byte, l4Small)
	for i, c := range all {
		var err error
		each[i], err = idleMemory(ctx, c.proc, l4Idle, 0, func() (*asker, error) {
			a, err := dialAsker(ctx, c.addr, nil)
			if err != nil {
				return nil, err
			}
			return a, askTCP(a.c, askSmall, buf)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	fmt.Fprintf(out, "%s, %d\t%.0f B/connection\t%.0f B/connection\t%.2f\t%.1f\n", l4IdleName, l4Idle, each[0], each[1], each[1]/each[0], l4IdleLimit)
	return nil
}

// idleMemory is what a connection costs that has asked once and waits, bytes, settle
// after the last of n has asked. open opens one, and has it ask.
func idleMemory(ctx context.Context, p *program.Process, n int, settle time.Duration, open func() (*asker, error)) (each float64, err error) {
	before, err := rss(p)
	if err != nil {
		return 0, err
	}
	var idle []*asker
	defer func() {
		for _, a := range idle {
			a.c.Close()
		}
	}()
	for range n {
		a, err := open()
		if a != nil {
			idle = append(idle, a)
		}
		if err != nil {
			return 0, err
		}
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := rss(p)
	return float64(after-before) / float64(n), err
}

// answerTCP answers questions until the connection ends.
func answerTCP(c net.Conn) {
	var question [l4Question]byte
	var answer []byte
	for {
		if _, err := io.ReadFull(c, question[:]); err != nil {
			return
		}
		if n := sizeOf(question[0]); len(answer) != n {
			answer = make([]byte, n)
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}
