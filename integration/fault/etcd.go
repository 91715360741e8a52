package fault

import (
	"context"
	"fmt"
	"iter"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/musterdns/muster/integration/program"
)

// The ports of a lab's etcd.
const (
	portEtcd     = 2379
	portEtcdPeer = 2380
)

// Keys is what every key of the lab's zone begins with.
const Keys = "/muster/v1/"

// txnOps is the greatest number of operations that etcd takes in one
// transaction by default (--max-txn-ops).
const txnOps = 128

// Etcd is a real etcd of one member, and a client of it. It can be killed and
// started again with its data.
type Etcd struct {
	*clientv3.Client

	URL     string
	dir     string // of its data, in the lab's
	lab     *Lab
	process *program.Process
}

// Etcd starts an etcd and waits until it answers. The caller must Close its
// client; the lab ends the process.
func (l *Lab) Etcd(ctx context.Context) (*Etcd, error) {
	e := &Etcd{URL: "http://" + l.at(hostEtcd, portEtcd), dir: "etcd", lab: l}
	if err := e.Start(); err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{e.URL}, Logger: zap.NewNop(), DialTimeout: startTimeout,
		// After a restart it is to be back at once.
		BackoffWaitBetween: 20 * time.Millisecond, BackoffJitterFraction: 0.1,
	})
	if err != nil {
		return nil, err
	}
	e.Client = client
	return e, e.Ready(ctx)
}

// Start starts the process on its data, as they are.
func (e *Etcd) Start() error {
	path, err := program.Find("etcd")
	if err != nil {
		return fmt.Errorf("%w (apt-get install etcd-server)", err)
	}
	peer := "http://" + e.lab.at(hostEtcd, portEtcdPeer)
	e.process, err = e.lab.Start("etcd", path, "--log-level", "error", "--name", "lab", "--data-dir", e.lab.Path(e.dir),
		"--listen-client-urls", e.URL, "--advertise-client-urls", e.URL,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "lab="+peer,
		"--initial-cluster-token", e.dir) // other data are another cluster's
	return err
}

// Keep copies the data, under a name that Replace takes. Etcd must not run.
func (e *Etcd) Keep(name string) error {
	return os.CopyFS(e.lab.Path(name), os.DirFS(e.lab.Path(e.dir)))
}

// Replace starts etcd at the same address on other data: what Keep kept under
// the name or, where nothing is, a cluster that is new. Etcd must not run.
func (e *Etcd) Replace(ctx context.Context, name string) error {
	e.dir = name
	if err := e.Start(); err != nil {
		return err
	}
	return e.Ready(ctx)
}

// Ready waits until it has a leader and answers.
func (e *Etcd) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return e.process.Poll(ctx, func() error {
		try, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := e.Get(try, "ready")
		return err
	})
}

// Kill ends the process as a crash does; its data stay.
func (e *Etcd) Kill() error { return Kill(e.process) }

// Load puts many keys, a transaction of them at a time.
func (e *Etcd) Load(ctx context.Context, records iter.Seq2[string, string]) error {
	var ops []clientv3.Op
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, err := e.Txn(ctx).Then(ops...).Commit()
		ops = ops[:0]
		return err
	}
	for key, value := range records {
		if ops = append(ops, clientv3.OpPut(key, value)); len(ops) == txnOps {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// Listen is where it listens.
func (e *Etcd) Listen() string { return strings.TrimPrefix(e.URL, "http://") }

// Instance is the key of an instance.
func Instance(service, id string) string { return Keys + "instances/" + service + "/" + id }

// Instances yields services of some instances each, without checks.
func Instances(services, each int) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		for i := range services {
			for k := range each {
				if !yield(Instance(ServiceName(i), fmt.Sprintf("i%d", k)), fmt.Sprintf(`{"address":%q,"port":8080}`, Address(i*each+k))) {
					return
				}
			}
		}
	}
}

// ServiceName is the name of the i-th service.
func ServiceName(i int) string { return fmt.Sprintf("svc%05d", i) }

// Address is the n-th address, of 16 million.
func Address(n int) string { return fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255) }
