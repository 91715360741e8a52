package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/musterdns/muster/integration/program"
)

// start starts a program on one core.
func start(core int, name string, argv ...string) (*program.Process, error) {
	return program.Start(name, append([]string{"taskset", "-c", strconv.Itoa(core)}, argv...)...)
}

// tree lists a process and its descendants.
func tree(p *program.Process) ([]int, error) {
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
	pids := []int{p.PID()}
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

// cpu is the time that all threads of a tree have been on a core. Threads
// that have ended are not counted; no server here ends any under load.
func cpu(p *program.Process) (time.Duration, error) {
	if err := p.Ended(); err != nil {
		return 0, err
	}
	pids, err := tree(p)
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
		return 0, fmt.Errorf("%s: the kernel keeps no schedstat", p.Name())
	}
	return sum, nil
}

// rss is the resident memory of a tree, bytes: shared pages count once, in
// proportion (Pss).
func rss(p *program.Process) (int64, error) {
	pids, err := tree(p)
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
