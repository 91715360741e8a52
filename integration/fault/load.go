package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// Load is a steady stream of questions.
type Load struct {
	Addr   string
	Rate   int      // queries a second
	Names  []string // asked for in turn, type A
	Judge  func(*dns.Msg) error
	Window time.Duration // 0: for as long as the context lasts
}

// Tally is what came of a load.
type Tally struct {
	Sent, Answered, Stale int
	Lost                  int              // no answer within queryTimeout
	Refused               int              // of Sent, those that the kernel said nobody took
	Wrong                 map[string]int   // answers by what Judge said of them; bounded by what Judge says
	LastStale             string           // text of the newest extended error
	Took                  Times            // each answer
	Slowest               time.Duration    // of the answers
	pending               map[uint16]query // by id
}

type query struct {
	sent time.Time
}

// Bad is an error unless every question got a right answer.
func (t *Tally) Bad() error {
	if t.Sent == 0 {
		return errors.New("nothing was asked")
	}
	if t.Lost == 0 && len(t.Wrong) == 0 {
		return nil
	}
	return fmt.Errorf("of %d queries %d were lost and answers were wrong: %v", t.Sent, t.Lost, t.Wrong)
}

// Run asks until ctx or the window ends, and returns once every answer has
// come or is lost. The end of ctx is no error.
func (l *Load) Run(ctx context.Context) (Tally, error) {
	if l.Window > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.Window)
		defer cancel()
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", l.Addr)
	if err != nil {
		return Tally{}, err
	}
	defer conn.Close()
	if err := enlarge(conn.(*net.UDPConn)); err != nil {
		return Tally{}, err
	}
	var mu sync.Mutex // guards t
	t := Tally{Wrong: map[string]int{}, pending: map[uint16]query{}}
	var receiving sync.WaitGroup
	receiving.Go(func() { l.receive(conn, &mu, &t) })
	err = l.send(ctx, conn, &mu, &t)
	// The last answers: none is waited for longer than the time that it has.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
	defer cancel()
	_ = Until(last, time.Millisecond, func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(t.pending) > 0 {
			return errors.New("not all answered")
		}
		return nil
	})
	conn.Close()
	receiving.Wait()
	t.Lost += len(t.pending)
	return t, err
}

// enlarge makes room for the answers that come while this process waits for a
// core: with the usual 208 KiB a few hundred are the limit, and what the kernel
// drops here would count as lost.
func enlarge(conn *net.UDPConn) error {
	const room, soRcvBufForce = 4 << 20, 33 // SO_RCVBUFFORCE of asm-generic/socket.h
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	forced := false
	err = raw.Control(func(fd uintptr) {
		forced = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soRcvBufForce, room) == nil
	})
	if err != nil || forced {
		return err
	}
	return conn.SetReadBuffer(room) // as far as the kernel lets one who is not root
}

// send sends at the rate; what a late tick missed is made up for.
func (l *Load) send(ctx context.Context, conn net.Conn, mu *sync.Mutex, t *Tally) error {
	tick := time.NewTicker(max(time.Second/time.Duration(l.Rate), time.Millisecond))
	defer tick.Stop()
	began := time.Now()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for due := int(now.Sub(began).Seconds() * float64(l.Rate)); n < due; n++ {
				id := uint16(n)
				b, err := question(id, l.Names[n%len(l.Names)], dns.TypeA)
				if err != nil {
					return err
				}
				mu.Lock()
				if _, unanswered := t.pending[id]; unanswered {
					t.Lost++
				}
				t.pending[id] = query{time.Now()}
				t.Sent++
				mu.Unlock()
				// That nobody took a query is told by the next call. A call
				// that tells it sends nothing.
				if _, err := conn.Write(b); err != nil {
					t.refuse(mu)
					_, _ = conn.Write(b)
				}
			}
		}
	}
}

// receive counts answers until the socket is closed.
func (l *Load) receive(conn net.Conn, mu *sync.Mutex, t *Tally) {
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // the kernel's word for a query that nobody took
			t.refuse(mu)
			continue
		}
		m := new(dns.Msg)
		verdict := m.Unpack(buf[:n])
		if verdict == nil {
			verdict = l.Judge(m)
		}
		mu.Lock()
		t.count(m, verdict)
		mu.Unlock()
	}
}

// refuse counts a query that nobody took.
func (t *Tally) refuse(mu *sync.Mutex) {
	mu.Lock()
	defer mu.Unlock()
	t.Refused++
}

func (t *Tally) count(m *dns.Msg, verdict error) {
	q, ok := t.pending[m.Id]
	if !ok {
		t.Wrong["answers that nobody waits for"]++
		return
	}
	delete(t.pending, m.Id)
	t.Answered++
	took := time.Since(q.sent)
	t.Took = append(t.Took, took)
	t.Slowest = max(t.Slowest, took)
	if took > queryTimeout {
		t.Lost++
	}
	if verdict != nil {
		t.Wrong[verdict.Error()]++
	}
	if text, stale := Stale(m); stale {
		t.Stale++
		t.LastStale = text
	}
}
