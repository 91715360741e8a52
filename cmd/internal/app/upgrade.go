package app

import (
	"context"
	"fmt"
	"maps"
	"syscall"
	"time"

	"github.com/musterdns/muster/cmd/internal/admin"
	"github.com/musterdns/muster/cmd/internal/handover"
)

// upgradeMax is how long the process that is to follow may take to be ready.
const upgradeMax = 30 * time.Second

// upgrades hands over to a new process each time it is asked to, until ctx ends
// or one has taken over; then it calls stop.
func (s *server) upgrades(ctx context.Context, stop func()) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.opt.Upgrade:
		}
		pid, err := s.upgrade(ctx)
		if err != nil {
			s.log.Error("the upgrade failed, this process goes on", "error", err)
			continue
		}
		s.log.Info("a new process has taken over", "pid", pid)
		s.notify(fmt.Sprintf("MAINPID=%d", pid))
		stop()
		return nil
	}
}

// upgrade starts the process that is to follow. What it needs to know of the
// instances' health, it reads from the snapshot.
func (s *server) upgrade(ctx context.Context) (pid int, err error) {
	if s.etcd != nil {
		return 0, fmt.Errorf("the embedded etcd cannot be handed over: use registry.mode etcd, or restart")
	}
	if s.snapshots.path != "" {
		if _, err := s.snapshots.write(ctx, nil, true); err != nil {
			s.log.Warn("the new process starts from an older snapshot", "error", err)
		}
	}
	sockets := map[string]syscall.Conn{admin.SocketName(s.cfg.Load().Admin.Listen): s.admin.Socket()}
	maps.Copy(sockets, s.dns.Sockets())
	maps.Copy(sockets, s.encrypted.sockets())
	for _, h := range s.proxies.now.Load().http {
		maps.Copy(sockets, h.proxy.Sockets())
	}
	for _, st := range s.proxies.now.Load().streams {
		maps.Copy(sockets, st.sockets())
	}
	maps.Copy(sockets, s.proxies.kernel.sockets())
	terms := s.proxies.kernel.terms()
	pid, err = handover.Start(ctx, handover.Estate{Sockets: sockets, Terms: terms}, upgradeMax)
	if err == nil {
		s.proxies.kernel.handOver(terms)
	}
	return pid, err
}

// notify tells the service manager.
func (s *server) notify(state string) {
	if err := handover.Notify(state); err != nil {
		s.log.Warn("telling the service manager failed", "state", state, "error", err)
	}
}
