// Package handover gives the listening sockets of a server to the process that
// follows it, so that an upgrade refuses no connection and loses no datagram:
// both processes have the same sockets, and the old one reads from them until
// the new one says that it answers.
//
// The new process is started from the old one's program file, as it is then,
// with the same arguments. Its environment says which sockets it has
// (MUSTER_HANDOVER) and what else it is to go on with (MUSTER_HANDOVER_TERMS);
// file 3 is a pipe on which it tells that it is ready.
package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// variable is the environment variable that names the sockets, as a JSON array
// in the order of their descriptors, the first of which is firstSocket.
const variable = "MUSTER_HANDOVER"

// termsVariable is the environment variable that has the terms, as a JSON object.
const termsVariable = "MUSTER_HANDOVER_TERMS"

const (
	readyPipe   = 3
	firstSocket = 4
)

// Set is what a process was given. It is safe for concurrent use. The nil Set has
// nothing.
type Set struct {
	mu    sync.Mutex
	files map[string]*os.File
	terms map[string]string
	ready *os.File
}

// Estate is what a process gives to the one that follows.
type Estate struct {
	// Sockets, by names that the processes agree on.
	Sockets map[string]syscall.Conn
	// Terms that others believe this process to be in, each by a name and in
	// words that the one that follows understands.
	Terms map[string]string
}

// Inherited returns what the process before this one gave; nil when there was
// none. It is to be called once, before anything opens files, and takes the
// variable out of the environment.
func Inherited() (*Set, error) {
	value, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(variable); err != nil {
		return nil, err
	}
	var names []string
	if err := json.Unmarshal([]byte(value), &names); err != nil {
		return nil, fmt.Errorf("%s=%q: %w", variable, value, err)
	}
	s := &Set{files: map[string]*os.File{}, ready: os.NewFile(readyPipe, "ready")}
	if terms, ok := os.LookupEnv(termsVariable); ok { // a process before may know of none
		if err := errors.Join(os.Unsetenv(termsVariable), json.Unmarshal([]byte(terms), &s.terms)); err != nil {
			return nil, fmt.Errorf("%s=%q: %w", termsVariable, terms, err)
		}
	}
	syscall.CloseOnExec(readyPipe)
	for i, name := range names {
		syscall.CloseOnExec(firstSocket + i)
		s.files[name] = os.NewFile(uintptr(firstSocket+i), name)
	}
	return s, nil
}

// Take returns the socket of a name, which is then the caller's; nil: there is
// none (any more).
func (s *Set) Take(name string) *os.File {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[name]
	delete(s.files, name)
	return f
}

// TakeTerm returns the term of a name, which is then the caller's to go on with;
// empty: there is none (any more).
func (s *Set) TakeTerm(name string) string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	term := s.terms[name]
	delete(s.terms, name)
	return term
}

// Ready tells the process before this one that it may stop, and closes what
// nobody has taken.
func (s *Set) Ready() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		f.Close()
	}
	clear(s.files)
	if s.ready == nil {
		return nil
	}
	_, err := s.ready.Write([]byte{1})
	err = errors.Join(err, s.ready.Close())
	s.ready = nil
	return err
}

// Start starts this program anew, as its file and arguments now are, with the
// estate, and returns once the new process has said that it is ready. One that
// ends or does not say so within timeout is killed, and the error tells: the
// caller goes on as before.
func Start(ctx context.Context, estate Estate, timeout time.Duration) (pid int, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	// The kernel adds this to the path of a file that was replaced.
	program = strings.TrimSuffix(program, " (deleted)")
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	process, err := start(program, os.Args, estate, w)
	w.Close()
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", program, err)
	}
	if err := await(ctx, r, timeout); err != nil {
		err = fmt.Errorf("the new process %d did not get ready: %w", process.Pid, err)
		return 0, errors.Join(err, end(process))
	}
	pid = process.Pid
	return pid, process.Release()
}

// start forks. The descriptors are used as they are: os/exec would make the
// sockets blocking, which this process shares.
func start(program string, args []string, estate Estate, ready *os.File) (*os.Process, error) {
	names := slices.Sorted(maps.Keys(estate.Sockets))
	value, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	terms, err := json.Marshal(estate.Terms)
	if err != nil {
		return nil, err
	}
	files := []uintptr{0, 1, 2, 0}
	var dups []int
	defer func() {
		for _, fd := range dups {
			_ = syscall.Close(fd) // ours alone
		}
	}()
	for _, c := range append([]syscall.Conn{ready}, conns(estate.Sockets, names)...) {
		fd, err := duplicate(c)
		if err != nil {
			return nil, err
		}
		dups = append(dups, fd)
	}
	files[readyPipe] = uintptr(dups[0])
	for _, fd := range dups[1:] {
		files = append(files, uintptr(fd))
	}
	pid, _, err := syscall.StartProcess(program, args, &syscall.ProcAttr{
		Env: append(os.Environ(), variable+"="+string(value), termsVariable+"="+string(terms)), Files: files,
	})
	if err != nil {
		return nil, err
	}
	return os.FindProcess(pid)
}

// conns lists the sockets in the order of names.
func conns(sockets map[string]syscall.Conn, names []string) []syscall.Conn {
	list := make([]syscall.Conn, len(names))
	for i, name := range names {
		list[i] = sockets[name]
	}
	return list
}

// Duplicate returns a socket as a file of its own, of a name.
func Duplicate(c syscall.Conn, name string) (*os.File, error) {
	fd, err := duplicate(c)
	if err != nil {
		return nil, fmt.Errorf("duplicating socket %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// duplicate returns another descriptor of a socket, closed on exec.
func duplicate(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(old uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, err = syscall.Dup(int(old)); err == nil {
			syscall.CloseOnExec(fd)
		}
	})
	return fd, errors.Join(controlErr, err)
}

// await waits for the octet that says ready.
func await(ctx context.Context, r *os.File, timeout time.Duration) error {
	if err := r.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) }) // fails once closed
	defer stop()
	_, err := io.ReadFull(r, make([]byte, 1))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF):
		return errors.New("it ended; its log says why")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("it took longer than %s", timeout)
	default:
		return err
	}
}

// end ends a process that is of no use.
func end(p *os.Process) error {
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_, err := p.Wait()
	return err
}

// Signal is what asks a server to hand over (nginx's choice), as a channel.
func Signal() (c <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGUSR2)
	return ch, func() { signal.Stop(ch) }
}
