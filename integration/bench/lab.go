package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/musterdns/muster/integration/program"
)

// startTimeout is how long a program may take until it answers.
const startTimeout = 20 * time.Second

// lab is a directory with what a benchmark needs and the programs it started.
type lab struct {
	dir        string
	data       dataset
	echo, load string             // the compiled programs in C
	muster     string             // the binary; "" if it does not take part
	programs   map[string]string  // paths of the servers' programs
	queries    []string           // the generator's input, by kind
	etcd       string             // URL
	dot, doh   int                // ports for what is started next, in transports
	admin      string             // Muster's admin address; "" before it has started
	started    []*program.Process //  in the order of starting
}

// newLab prepares a directory, and an etcd with the data if Muster takes part.
func newLab(ctx context.Context, o dnsOptions) (*lab, error) {
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{dir: dir, data: o.data, programs: map[string]string{}}
	if err := l.prepare(ctx, o); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) prepare(ctx context.Context, o dnsOptions) (err error) {
	programs := filepath.Join(l.dir, "csrc")
	if err := os.Mkdir(programs, 0o750); err != nil {
		return err
	}
	if l.echo, err = compile(ctx, programs, "echo"); err != nil {
		return err
	}
	if l.load, err = compile(ctx, programs, "load"); err != nil {
		return err
	}
	for _, k := range kinds {
		name := filepath.Join(l.dir, "queries-"+k.name)
		if err := os.WriteFile(name, l.data.queries(k.mixed), 0o600); err != nil {
			return err
		}
		l.queries = append(l.queries, name)
	}
	if !o.takesPart("muster") {
		return nil
	}
	if o.muster == "" {
		return errNoMuster
	}
	if l.muster, err = filepath.Abs(o.muster); err != nil {
		return err
	}
	return l.startEtcd(ctx)
}

// close ends what was started and removes the directory.
func (l *lab) close() {
	for _, p := range slices.Backward(l.started) {
		p.Stop()
	}
	os.RemoveAll(l.dir)
}

// ready waits until f succeeds, for as long as p runs and startTimeout lasts.
func ready(ctx context.Context, p *program.Process, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p.Poll(ctx, f)
}

// ask sends one query and checks that it is answered; with answers, by a
// NOERROR response with a record in it.
func ask(ctx context.Context, port int, query []byte, answers bool) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := conn.Write(query); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, err := conn.Read(reply)
	switch {
	case err != nil:
		return err
	case n < 12 || reply[2]&0x80 == 0:
		return errors.New("the reply is no response")
	case answers && (reply[3]&15 != 0 || reply[6] == 0 && reply[7] == 0):
		return fmt.Errorf("rcode %d with %d answers", reply[3]&15, int(reply[6])<<8|int(reply[7]))
	}
	return nil
}

// command runs a program on one core to its end and returns what it printed.
func command(ctx context.Context, core int, argv ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", strconv.Itoa(core)}, argv...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
