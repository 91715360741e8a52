//go:build linux

package l4

import "golang.org/x/sys/unix"

const (
	// pipeOctets is how much a pipe is asked to hold. The kernel gives less to
	// those without privilege who have many (pipe-user-pages-soft).
	pipeOctets = 256 << 10
	// pipesIdle is how many pipes a loop keeps for the next who needs one.
	pipesIdle = 64
)

// pipe is what octets go through between two sockets.
type pipe struct {
	r, w int
	held int // octets in it
}

// pipes are a loop's pipes that nobody needs now; all are empty.
type pipes struct{ idle []*pipe }

// get returns an empty pipe; nil: none is to be had.
func (p *pipes) get() *pipe {
	if n := len(p.idle); n > 0 {
		got := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return got
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeOctets) // or it stays as it is
	return &pipe{r: fds[0], w: fds[1]}
}

// put takes a pipe back. One that holds octets is closed.
func (p *pipes) put(back *pipe) {
	if back.held == 0 && len(p.idle) < pipesIdle {
		p.idle = append(p.idle, back)
		return
	}
	back.close()
}

// close closes all.
func (p *pipes) close() {
	for _, idle := range p.idle {
		idle.close()
	}
	p.idle = nil
}

func (p *pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}
