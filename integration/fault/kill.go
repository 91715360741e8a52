package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/musterdns/muster/integration/program"
)

// Death is a way in which an instance dies, and how that is found out.
type Death struct {
	Title  string
	Checks string // of the service, JSON
	Cause  string // that the server tells of
	// holder is the command that registers the instance and is killed instead
	// of it, or whose child is; nil: the registration stays.
	holder  func(l *Lab, service string, host byte) []string
	orphan  bool   // the holder is killed, not the instance
	gdnsd   *Gdnsd // does the same, or what is nearest to it; nil: it has nothing like it
	Percent int    // of the kills that must be answered in Limit
	Limit   time.Duration
}

// Deaths are those that Crash measures.
func Deaths() []Death {
	register := func(flags ...string) func(*Lab, string, byte) []string {
		return func(l *Lab, service string, host byte) []string {
			argv := []string{
				"env", "MUSTER_ADDR=http://" + l.at(hostMuster, portAdmin), l.Binary, "register", service,
				"--id", "goes", "--address", l.Addr(host).String(), "--port", strconv.Itoa(portBackend), "--check", "none",
			}
			argv = append(argv, flags...)
			for i, a := range argv {
				if a == "ADDR" {
					argv[i] = l.at(host, portBackend)
				}
			}
			return argv
		}
	}
	return []Death{
		{Title: "held check", Checks: `[{"type":"held"}]`, Cause: "held", Percent: 99, Limit: 50 * time.Millisecond},
		// etcd writes the deregistration to its disk, and more than one lane does.
		{
			Title: "child of muster register", Checks: `[]`, Cause: "deleted", holder: register(append([]string{"--", self()}, BackendArgs("ADDR")...)...),
			Percent: 99, Limit: 250 * time.Millisecond,
		},
		{Title: "http check that keeps its connection, each 2 s, fall 3", Checks: `[{"type":"http","path":"/","keep":true}]`, Cause: "http", Percent: 100, Limit: 3500 * time.Millisecond},
		{
			Title: "http check each 1 s, fall 2", Checks: `[{"type":"http","path":"/","interval":"1s","fall":2}]`, Cause: "http", Percent: 100, Limit: 2200 * time.Millisecond,
			gdnsd: &Gdnsd{Plugin: "http_status", Interval: int(GdnsdIntervalMin.Seconds()), Fall: 2},
		},
		{
			Title: "http check by default: each 2 s, fall 3", Checks: `[{"type":"http","path":"/"}]`, Cause: "http", Percent: 100, Limit: 3500 * time.Millisecond,
			gdnsd: &Gdnsd{Plugin: "http_status", Interval: 2, Fall: 3},
		},
		// etcd looks for leases that have run out each 500 ms.
		{Title: "lease of 2 s alone", Checks: `[]`, Cause: "lease", holder: register("--lease", strconv.Itoa(leaseTTL)+"s"), orphan: true, Percent: 100, Limit: leaseTTL*time.Second + 700*time.Millisecond},
	}
}

// Registered reports whether the registration goes by the death.
func (d *Death) Registered() bool { return d.holder != nil }

// ByLease reports whether nothing but a lease that runs out tells of the death.
func (d *Death) ByLease() bool { return d.orphan }

// self is this program.
func self() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

// kill ends what is to die: the process that serves, which is the holder's
// child if there is a holder.
func (d *Death) kill(p *program.Process) error {
	if d.holder == nil || d.orphan {
		return Kill(p)
	}
	var all []string
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.PID()))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err == nil {
			all = append(all, strings.Fields(string(text))...)
		}
	}
	if len(all) != 1 {
		return fmt.Errorf("%s has the children %q: want one", p.Name(), all)
	}
	pid, err := strconv.Atoi(all[0])
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
