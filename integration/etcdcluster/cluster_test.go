package etcdcluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/program"
)

func TestMain(m *testing.M) {
	if fault.Backend(os.Args) {
		return
	}
	goleak.VerifyTestMain(m)
}

// members is how many there are: one may fail.
const members = 3

// member is one etcd of the cluster.
type member struct {
	name, client, peer, dir string
	process                 *program.Process
}

// cluster is three members on loopback addresses, and a client of all.
type cluster struct {
	t       *testing.T
	members [members]*member
	client  *clientv3.Client
	etcd    string // program
}

// newCluster starts a cluster that ends with the test.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	path, err := program.Find("etcd")
	if err != nil {
		t.Fatalf("%v (apt-get install etcd-server)", err)
	}
	c := &cluster{t: t, etcd: path}
	for i := range members {
		client, peer := freeAddr(t), freeAddr(t)
		c.members[i] = &member{
			name: fmt.Sprintf("m%d", i), client: "http://" + client, peer: "http://" + peer, dir: filepath.Join(t.TempDir(), "data"),
		}
	}
	for i := range members {
		c.start(i)
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			_ = m.process.Signal(syscall.SIGCONT) // or it cannot end
			m.process.Stop()
		}
	})
	c.client, err = clientv3.New(clientv3.Config{Endpoints: strings.Split(c.urls(), ","), Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.client.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := fault.Until(ctx, 50*time.Millisecond, func() error {
		_, err := c.client.Get(ctx, "x")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

func freeAddr(t *testing.T) string {
	t.Helper()
	p, err := program.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(p)).String()
}

// start starts a member on the data that it has.
func (c *cluster) start(i int) {
	c.t.Helper()
	m := c.members[i]
	var all []string
	for _, o := range c.members {
		all = append(all, o.name+"="+o.peer)
	}
	var err error
	m.process, err = program.Start("etcd "+m.name, c.etcd, "--log-level", "error", "--name", m.name, "--data-dir", m.dir,
		"--listen-client-urls", m.client, "--advertise-client-urls", m.client,
		"--listen-peer-urls", m.peer, "--initial-advertise-peer-urls", m.peer,
		"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new",
		"--heartbeat-interval", "50", "--election-timeout", "500")
	if err != nil {
		c.t.Fatal(err)
	}
}

// urls are those of all members.
func (c *cluster) urls() string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.client)
	}
	return strings.Join(all, ",")
}

// kill ends a member as a crash does.
func (c *cluster) kill(i int) {
	c.t.Helper()
	if err := c.members[i].process.Signal(syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	<-c.members[i].process.Done()
}

// hang stops a member without closing anything: its connections are half open.
func (c *cluster) hang(i int) { c.signal(i, syscall.SIGSTOP) }
func (c *cluster) goOn(i int) { c.signal(i, syscall.SIGCONT) }
func (c *cluster) signal(i int, s syscall.Signal) {
	c.t.Helper()
	if err := c.members[i].process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

var errNoLeader = errors.New("no leader")

// leader is the member that leads.
func (c *cluster) leader(ctx context.Context) (int, error) {
	for i, m := range c.members {
		call, cancel := context.WithTimeout(ctx, time.Second)
		st, err := c.client.Status(call, m.client)
		cancel()
		if err == nil && st.Leader != 0 && st.Leader == st.Header.MemberId {
			return i, nil
		}
	}
	return 0, errNoLeader
}

// replica starts a muster on the cluster, in a lab of its own.
func (c *cluster) replica(more string) (*fault.Lab, *fault.Server) {
	c.t.Helper()
	bin, err := program.Muster(c.t.Context(), c.t.TempDir())
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := fault.NewLab(bin)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(l.Close)
	s, err := l.Run(c.t.Context(), fault.Settings{Etcd: c.urls(), More: more})
	if err != nil {
		c.t.Fatal(err)
	}
	return l, s
}
