package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is how long a server gets to end by itself.
const stopTimeout = 5 * time.Second

// process is a started program with its children.
type process struct {
	name string
	cmd  *exec.Cmd
	log  bytes.Buffer  // what it wrote; read after done
	done chan struct{} // closed when it has ended
}

// start runs a program on one core. What it writes is shown if it fails.
func start(core int, name string, argv ...string) (*process, error) {
	p := &process{name: name, done: make(chan struct{})}
	p.cmd = exec.Command("taskset", append([]string{"-c", strconv.Itoa(core)}, argv...)...) //nolint:noctx // stop ends it, with a signal that lets it clean up
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	// Its own group, so that an interrupt of ours leaves it to stop; and no
	// server outlives a bench that was killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go p.wait()
	return p, nil
}

func (p *process) wait() {
	_ = p.cmd.Wait() // how it ended is told by ended
	close(p.done)
}

// ended returns an error with the program's output if it no longer runs.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %s\n%s", p.name, p.cmd.ProcessState, bytes.TrimSpace(p.log.Bytes()))
	default:
		return nil
	}
}

// stop ends the program and its children and waits for them.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what is left of its group
	<-p.done
}

// tree lists the process and its descendants.
func (p *process) tree() ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended since
		}
		pid, parent, err := parseStat(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		children[parent] = append(children[parent], pid)
	}
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids, nil
}

// parseStat reads the process id and its parent's from /proc/PID/stat, whose
// second field is the name in brackets and may hold anything (proc(5)).
func parseStat(text string) (pid, parent int, err error) {
	open, shut := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 1 || shut < open {
		return 0, 0, errors.New("no name in brackets")
	}
	fields := strings.Fields(text[shut+1:])
	if len(fields) < 2 {
		return 0, 0, errors.New("too few fields")
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(text[:open])); err != nil {
		return 0, 0, err
	}
	parent, err = strconv.Atoi(fields[1])
	return pid, parent, err
}

// cpu is the time that all threads of the tree have been on a core. Threads
// that have ended are not counted; no server here ends any under load.
func (p *process) cpu() (time.Duration, error) {
	if err := p.ended(); err != nil {
		return 0, err
	}
	pids, err := p.tree()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return 0, err
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				continue // the thread has ended since
			}
			first, _, _ := strings.Cut(string(text), " ")
			ns, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", name, err)
			}
			sum += time.Duration(ns)
		}
	}
	if sum == 0 {
		return 0, fmt.Errorf("%s: the kernel keeps no schedstat", p.name)
	}
	return sum, nil
}

// rss is the resident memory of the tree, bytes: shared pages count once, in
// proportion (Pss).
func (p *process) rss() (int64, error) {
	pids, err := p.tree()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it has ended since
		}
		for line := range strings.Lines(string(text)) {
			var kib int64
			if _, err := fmt.Sscanf(line, "Pss: %d kB", &kib); err == nil {
				sum += kib << 10
			}
		}
	}
	return sum, nil
}

// compile builds one of the C programs into dir and returns its path.
func compile(ctx context.Context, dir, name string) (string, error) {
	text, err := csrc.ReadFile("csrc/" + name + ".c")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, name)
	if err := os.WriteFile(binary+".c", text, 0o600); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "gcc", "-O2", "-o", binary, binary+".c").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compiling %s.c: %w\n%s", name, err, out)
	}
	return binary, nil
}
