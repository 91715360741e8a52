//go:build linux

package l4

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// bufferOctets is a loop's buffer: a message that fills it is worth a splice.
	bufferOctets = 64 << 10
	// spliceLeast is how much a splice must bring to be worth it, and smallMax how
	// many in a row may bring less before copying is taken up again: the end of
	// each body is small.
	spliceLeast = 4 << 10
	smallMax    = 8
	// turnOctets is how much a direction may move before others have their turn.
	turnOctets = 1 << 20
)

// side is one of the two sockets of a connection.
type side struct {
	fd int // -1: none
	// readable: there may be something to read. beyond: so there may be after
	// reading less than was asked for.
	readable, beyond bool
	watched          bool // registered with epoll, edge-triggered
	watchedOut       bool // for room to write, too
}

// flow is one direction of a connection.
type flow struct {
	from, to *side
	held     []byte // read, and not yet taken by to
	pipe     *pipe  // nil: none; else it holds octets, after held
	splicing bool
	small    uint8 // splices in a row that brought little
	eof      bool  // from has no more
	reset    bool  // as it was reset
	dead     bool  // to takes no more
	cut      bool  // as it was reset without having closed before
	done     bool  // to was told of the end
	octets   int64 // taken by to
}

// finished reports that nothing will be moved any more.
func (f *flow) finished() bool { return f.done || f.dead }

// pump moves what there is, in turns; more says that it has to be called again.
func (l *loop) pump(f *flow) (moved int64, more bool) {
	for moved < turnOctets {
		n, blocked := l.flush(f)
		moved += n
		if f.finished() || blocked {
			return moved, false
		}
		if f.eof {
			f.end()
			return moved, false
		}
		if !f.from.readable {
			return moved, false
		}
		if f.splicing && l.fill(f) {
			continue
		}
		moved += l.copyOnce(f)
	}
	return moved, true
}

// end tells the receiver that there is no more. A reset is told by whoever
// closes both.
func (f *flow) end() {
	f.done = true
	if !f.reset {
		_ = unix.Shutdown(f.to.fd, unix.SHUT_WR) // fails if it is gone, which is seen there
	}
}

// copyOnce moves what fits the loop's buffer.
func (l *loop) copyOnce(f *flow) (moved int64) {
	n, errno := receive(f.from.fd, l.buf)
	if errno != 0 || n == 0 {
		f.ended(errno)
		return 0
	}
	if n < len(l.buf) {
		// Less than was asked for is all there was: what comes next makes an edge.
		// Not so the end, if it came with this.
		f.from.readable = f.from.beyond
	} else {
		f.splicing, f.small = true, 0
	}
	sent, errno := send(f.to.fd, l.buf[:n])
	if errno != 0 {
		f.stuck(errno)
	}
	if sent < n {
		f.held = append(f.held, l.buf[sent:n]...)
	}
	return int64(sent)
}

// ended notes what reading ended with.
func (f *flow) ended(errno syscall.Errno) {
	switch errno {
	case unix.EAGAIN:
		f.from.readable = false
	case unix.EINTR:
	case 0:
		f.eof = true
	default:
		f.eof, f.reset = true, true
	}
}

// fill splices into the pipe what there is; false: it cannot, so copy.
func (l *loop) fill(f *flow) bool {
	p := f.pipe
	if p == nil {
		if p = l.pipes.get(); p == nil {
			l.counts.localFailed.Add(1)
			f.splicing = false
			return false
		}
	}
	n, errno := splice(f.from.fd, p.w, pipeOctets)
	switch {
	case errno != 0:
		f.ended(errno)
	case n == 0:
		f.eof = true
	case n >= spliceLeast:
		f.small = 0
	default:
		f.small++
		f.splicing = f.small < smallMax
	}
	if p.held += n; p.held > 0 {
		f.pipe = p
		return true
	}
	l.pipes.put(p)
	f.pipe = nil
	return true
}

// flush sends what is held; blocked says that the receiver takes no more now.
func (l *loop) flush(f *flow) (moved int64, blocked bool) {
	for len(f.held) > 0 {
		n, errno := send(f.to.fd, f.held)
		if errno != 0 {
			return moved, f.stuck(errno)
		}
		moved += int64(n)
		if f.held = f.held[n:]; len(f.held) == 0 {
			f.held = nil
		}
	}
	for f.pipe != nil {
		n, errno := splice(f.pipe.r, f.to.fd, f.pipe.held)
		if errno != 0 {
			return moved, f.stuck(errno)
		}
		moved += int64(n)
		if f.pipe.held -= n; f.pipe.held == 0 {
			l.pipes.put(f.pipe)
			f.pipe = nil
		}
	}
	return moved, false
}

// stuck notes why sending failed.
func (f *flow) stuck(errno syscall.Errno) (blocked bool) {
	switch errno {
	case unix.EAGAIN:
		return true
	case unix.EINTR:
	default:
		// EPIPE is what a reset after a FIN gives: the peer had said all.
		f.dead, f.cut = true, errno != unix.EPIPE
	}
	return false
}

// drop lets go of what is held.
func (l *loop) drop(f *flow) {
	f.held = nil
	if f.pipe != nil {
		l.pipes.put(f.pipe)
		f.pipe = nil
	}
}
