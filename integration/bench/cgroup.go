package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// groupPeriod is how often a group gets its time anew.
const groupPeriod = 10 * time.Millisecond

// group is a control group of its own, whose processes get no more than a share of the
// cores: by cgroup version 2, or 1 where cpu is mounted for that (cgroups(7)).
type group struct{ dir string }

// newGroup makes a group with so much time of a core, which may be more than one's.
func newGroup(name string, cores float64) (*group, error) {
	const root = "/sys/fs/cgroup"
	period := groupPeriod.Microseconds()
	quota := int64(cores * float64(period))
	name = fmt.Sprintf("muster-bench-%d-%s", os.Getpid(), name)
	g, files := &group{filepath.Join(root, "cpu", name)}, [][2]string{
		{"cpu.cfs_period_us", strconv.FormatInt(period, 10)}, {"cpu.cfs_quota_us", strconv.FormatInt(quota, 10)},
	}
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		g.dir, files = filepath.Join(root, name), [][2]string{{"cpu.max", fmt.Sprintf("%d %d", quota, period)}}
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+cpu"), 0); err != nil {
			return nil, fmt.Errorf("control groups: %w (run it as root)", err)
		}
	}
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		return nil, fmt.Errorf("control groups: %w (run it as root, with a cgroup file system that may be written)", err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(g.dir, f[0]), []byte(f[1]), 0); err != nil {
			g.remove()
			return nil, fmt.Errorf("control groups: %w", err)
		}
	}
	return g, nil
}

// command is a command that runs another in the group, on any of the cores.
func (g *group) command(cores string, argv ...string) []string {
	return append([]string{
		"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs"), "taskset", "-c", cores,
	}, argv...)
}

// remove removes the group, whose processes have ended.
func (g *group) remove() { _ = os.Remove(g.dir) } // an empty one that stays does no harm
