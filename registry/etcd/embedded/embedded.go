// Package embedded runs an etcd server inside the process: one member, for
// `muster dev`, for tests and for a single machine that wants no etcd beside
// Muster. It is etcd and nothing less: etcdctl works with its URL.
//
// Invariant: this is the one package that imports etcd's server, and no client
// imports this package.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

const (
	// takenMax is how many times an address is tried that was free and is not.
	takenMax = 3
	// DefaultListen is where the server listens unless configured otherwise.
	DefaultListen = "127.0.0.1:2379"

	// One member elects itself, so its time is for nothing but starting: a
	// hundred milliseconds instead of etcd's second. The tick stays long enough
	// that an idle server costs nothing.
	tickMillis     = 20
	electionMillis = 100

	// etcd preallocates two segments of its log. 64 MB each, its default, is
	// for disks that hold nothing else.
	segmentBytes = 4 << 20
	// quotaBytes bounds the store.
	quotaBytes = 1 << 30
	// Old revisions are dropped after this time; watchers that were away for
	// longer read the state again.
	retention = "10m"
	// snapshotCount is the number of changes between two snapshots of the log.
	snapshotCount = 10_000

	startTimeout = 30 * time.Second
)

// Config says how the server runs.
type Config struct {
	// Dir holds the data; it is made when missing. Empty: a temporary
	// directory, removed at the end, and no waiting for the disk.
	Dir string
	// Listen is the address for clients, an IP address and a port; empty means
	// DefaultListen. The port 0 is a free one.
	Listen string
	// AnyPort takes a free port when that of Listen is busy. URL says which.
	AnyPort bool
	// Log receives what etcd logs, from warnings on as they are, the rest as
	// debugging; nil: none.
	Log *slog.Logger
}

// Server is an etcd server that was started. It runs until Run's context ends,
// or Close.
type Server struct {
	etcd    *embed.Etcd
	url     string
	tempDir string // to be removed; empty: none

	serving atomic.Bool // between the end of its start and the order to stop
	closing sync.Once
	removal error
}

// smallSegments makes new log segments small. The size is a variable of
// etcd's; it is set once, before the first server of the process reads it.
var smallSegments = sync.OnceFunc(func() { wal.SegmentSizeBytes = segmentBytes }) //nolint:reassign // etcd has no other way

// Start starts a server and returns when it answers, or with an error by
// itself or by ctx. The caller must Run or Close it.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	smallSegments()
	for tries := 1; ; tries++ {
		listen, err := chooseListen(ctx, cfg)
		if err != nil {
			return nil, err
		}
		s, err := start(ctx, cfg, listen)
		if tries < takenMax && errors.Is(err, syscall.EADDRINUSE) {
			continue // between the choice and etcd's own use of it
		}
		return s, err
	}
}

// start is Start on an address.
func start(ctx context.Context, cfg Config, listen netip.AddrPort) (*Server, error) {
	var err error
	s := &Server{url: "http://" + listen.String()}
	dir := cfg.Dir
	if dir == "" {
		if s.tempDir, err = os.MkdirTemp("", "muster-etcd-"); err != nil {
			return nil, fmt.Errorf("embedded etcd: %w", err)
		}
		dir = s.tempDir
	}
	if err := checkUnused(dir); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	s.etcd, err = embed.StartEtcd(serverConfig(cfg, dir, s.url, &s.serving))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting embedded etcd in %s on %s: %w", dir, listen, err), s.remove())
	}
	if err := s.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.serving.Store(true)
	return s, nil
}

// chooseListen resolves the configured address to one that is free.
func chooseListen(ctx context.Context, cfg Config) (netip.AddrPort, error) {
	text := cfg.Listen
	if text == "" {
		text = DefaultListen
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return addr, fmt.Errorf("embedded etcd: listen: %q: write an IP address and a port, as %s", text, DefaultListen)
	}
	free, err := tryListen(ctx, addr)
	if err != nil && cfg.AnyPort && errors.Is(err, syscall.EADDRINUSE) {
		free, err = tryListen(ctx, netip.AddrPortFrom(addr.Addr(), 0))
	}
	if err != nil {
		return addr, fmt.Errorf("embedded etcd: listen: %w", err)
	}
	return free, nil
}

// tryListen finds out whether an address is free, and which port 0 becomes.
// etcd takes no listener but opens its own, so the port is given back and
// another process might take it in between: Start tries again then.
func tryListen(ctx context.Context, addr netip.AddrPort) (netip.AddrPort, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return addr, err
	}
	bound := l.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(addr.Addr(), bound.Port()), l.Close()
}

// checkUnused finds out whether another process has the directory open. etcd
// would wait for it without an end, a word, or a look at any context. One that
// takes it between this look and etcd's own is waited for all the same.
func checkUnused(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "member", "snap", "db"), os.O_RDWR, 0)
	if err != nil {
		return nil //nolint:nilerr // not there yet, or etcd says what is wrong with it
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("embedded etcd: %s is in use by another process: end that one, or choose another directory (registry.embedded.dir)", dir)
	}
	return nil // closing the file gives the lock back
}

// serverConfig is etcd's configuration of one small member.
func serverConfig(cfg Config, dir, clientURL string, serving *atomic.Bool) *embed.Config {
	ec := embed.NewConfig()
	ec.Name = "muster"
	ec.Dir = dir
	ec.TickMs, ec.ElectionMs = tickMillis, electionMillis
	ec.QuotaBackendBytes = quotaBytes
	ec.AutoCompactionMode, ec.AutoCompactionRetention = "periodic", retention
	ec.SnapshotCount = snapshotCount
	ec.UnsafeNoFsync = cfg.Dir == ""
	ec.EnableGRPCGateway = false
	client, _ := url.Parse(clientURL)          // built by Start from an address
	peer, _ := url.Parse("http://127.0.0.1:0") // nobody joins: any port
	ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	ec.ListenPeerUrls, ec.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZap(cfg.Log, serving))
	return ec
}

// awaitReady waits until the server answers.
func (s *Server) awaitReady(ctx context.Context) error {
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-s.etcd.Server.ReadyNotify():
		return nil
	case err := <-s.etcd.Err():
		return fmt.Errorf("starting embedded etcd: %w", err)
	case <-s.etcd.Server.StopNotify():
		return errors.New("starting embedded etcd: it stopped")
	case <-timer.C:
		return fmt.Errorf("starting embedded etcd: it does not answer after %s", startTimeout)
	case <-ctx.Done():
		return fmt.Errorf("starting embedded etcd: %w", ctx.Err())
	}
}

// URL is where clients reach the server, as "http://127.0.0.1:2379".
func (s *Server) URL() string { return s.url }

// Run returns when ctx has ended and the server is closed, with nil, or when
// the server has failed, with its error.
func (s *Server) Run(ctx context.Context) error {
	var failure error
	select {
	case <-ctx.Done():
	case err := <-s.etcd.Err():
		failure = fmt.Errorf("embedded etcd: %w", err)
	case <-s.etcd.Server.StopNotify():
		failure = errors.New("embedded etcd: it stopped by itself")
	}
	return errors.Join(failure, s.Close())
}

// Close stops the server and removes its temporary directory. A second call
// does nothing.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.serving.Store(false)
		s.etcd.Close()
		s.removal = s.remove()
	})
	return s.removal
}

// remove removes the temporary directory if there is one.
func (s *Server) remove() error {
	if s.tempDir == "" {
		return nil
	}
	if err := os.RemoveAll(s.tempDir); err != nil {
		return fmt.Errorf("embedded etcd: removing its temporary directory: %w", err)
	}
	return nil
}
