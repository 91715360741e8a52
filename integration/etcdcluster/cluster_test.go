package etcdcluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

// members is how many there are: one may fail.
const members = 3

// memberHost is the first member's address in the lab's network.
const memberHost = 20

// settleMax is how long a cluster may take until it has a leader and answers.
const settleMax = 30 * time.Second

// member is one etcd of the cluster.
type member struct {
	name, client, peer, dir string
	through                 []string // a command that starts it where it is to be; empty: here
	process                 *program.Process
	hangs                   bool
}

// cluster is three members and a client of all.
type cluster struct {
	*clientv3.Client

	t       *testing.T
	lab     *fault.Lab
	members [members]*member
	etcd    string // program
}

// place is where a member runs.
type place struct {
	addr    netip.Addr
	through []string
}

// newCluster starts a cluster on loopback addresses, which ends with the test.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	l := newLab(t)
	var at [members]place
	for i := range at {
		at[i].addr = l.Addr(byte(memberHost + i))
	}
	return newClusterAt(t, l, at)
}

func newLab(t *testing.T) *fault.Lab {
	t.Helper()
	l, err := fault.NewLab(binary)
	must(t, err)
	t.Cleanup(l.Close)
	return l
}

func newClusterAt(t *testing.T, l *fault.Lab, at [members]place) *cluster {
	t.Helper()
	path, err := program.Find("etcd")
	if err != nil {
		t.Fatalf("%v (apt-get install etcd-server)", err)
	}
	c := &cluster{t: t, lab: l, etcd: path}
	url := func(i int, port uint16) string { return "http://" + netip.AddrPortFrom(at[i].addr, port).String() }
	for i, p := range at {
		c.members[i] = &member{
			name: fmt.Sprintf("m%d", i), client: url(i, 2379), peer: url(i, 2380), dir: l.Path(fmt.Sprintf("m%d", i)), through: p.through,
		}
	}
	for i := range members {
		c.start(i)
	}
	t.Cleanup(func() { // before the lab's, which a member that hangs would hold up
		for i := range members {
			c.goOn(i)
		}
	})
	c.Client, err = clientv3.New(clientv3.Config{
		Endpoints: c.urls(), Logger: zap.NewNop(), DialTimeout: 5 * time.Second,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: time.Second, // a member that hangs is left
	})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	c.ready()
	return c
}

// peers is every member's name and address, as each is told.
func (c *cluster) peers() string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.name+"="+m.peer)
	}
	return strings.Join(all, ",")
}

// start starts a member on the data that it has.
func (c *cluster) start(i int) {
	c.t.Helper()
	m := c.members[i]
	var err error
	m.process, err = c.lab.Start("etcd "+m.name, append(m.through, c.etcd, "--log-level", "error", "--name", m.name, "--data-dir", m.dir,
		"--listen-client-urls", m.client, "--advertise-client-urls", m.client,
		"--listen-peer-urls", m.peer, "--initial-advertise-peer-urls", m.peer,
		"--initial-cluster", c.peers(), "--initial-cluster-state", "new",
		"--heartbeat-interval", "50", "--election-timeout", "500")...)
	must(c.t, err)
}

// ready waits until the cluster has a leader and answers.
func (c *cluster) ready() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), settleMax)
	defer cancel()
	must(c.t, fault.Until(ctx, 50*time.Millisecond, func() error {
		try, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := c.Get(try, "ready")
		return err
	}))
}

// urls are those of all members.
func (c *cluster) urls() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.client)
	}
	return all
}

// kill ends a member as a crash does.
func (c *cluster) kill(i int) {
	c.t.Helper()
	must(c.t, fault.Kill(c.members[i].process))
}

// hang stops a member without closing anything: its connections are half open.
func (c *cluster) hang(i int) {
	c.t.Helper()
	must(c.t, c.members[i].process.Signal(syscall.SIGSTOP))
	c.members[i].hangs = true
}

// goOn lets a member that hangs go on.
func (c *cluster) goOn(i int) {
	if m := c.members[i]; m.hangs {
		m.hangs = false
		must(c.t, m.process.Signal(syscall.SIGCONT))
	}
}

var errNoLeader = errors.New("no leader")

// leader waits for a leader and returns which member it is.
func (c *cluster) leader() int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), settleMax)
	defer cancel()
	var leader int
	must(c.t, fault.Until(ctx, 20*time.Millisecond, func() error {
		for i, m := range c.members {
			call, cancel := context.WithTimeout(ctx, time.Second)
			st, err := c.Status(call, m.client)
			cancel()
			if err == nil && st.Leader != 0 && st.Leader == st.Header.MemberId {
				leader = i
				return nil
			}
		}
		return errNoLeader
	}))
	return leader
}

// save backs the store up as an administrator does, and returns the file.
func (c *cluster) save() string {
	c.t.Helper()
	file := c.lab.Path("backup")
	c.etcdctl("--endpoints", c.members[0].client, "snapshot", "save", file)
	return file
}

// restore takes the whole cluster back to a backup, as etcd's handbook says: every
// member is stopped, gets new data, and is started.
func (c *cluster) restore(file string) {
	c.t.Helper()
	for i := range members {
		c.kill(i)
	}
	for _, m := range c.members {
		must(c.t, os.RemoveAll(m.dir))
		c.etcdctl("snapshot", "restore", file, "--name", m.name, "--data-dir", m.dir,
			"--initial-cluster", c.peers(), "--initial-advertise-peer-urls", m.peer)
	}
	for i := range members {
		c.start(i)
	}
	c.ready()
}

func (c *cluster) etcdctl(args ...string) {
	c.t.Helper()
	path, err := program.Find("etcdctl")
	if err != nil {
		c.t.Fatalf("%v (apt-get install etcd-client)", err)
	}
	cmd := exec.CommandContext(c.t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("etcdctl %q: %v\n%s", args, err, out)
	}
}
