package fault

import (
	"context"
	"net/netip"
	"os"

	"github.com/musterdns/muster/integration/program"
)

// backendVerb is the first argument that makes the running program an instance.
const backendVerb = "serve-as-an-instance"

// BackendArgs are the arguments that make this program an instance at addr.
func BackendArgs(addr string) []string { return []string{backendVerb, addr} }

// portBackend is where instances listen.
const portBackend = 8080

// BackendAddr is where an instance at a host of the lab listens.
func (l *Lab) BackendAddr(host byte) netip.AddrPort {
	return netip.AddrPortFrom(l.Addr(host), portBackend)
}

// StartBackend starts an instance that serves HTTP at a host of the lab, and
// waits until it does.
func (l *Lab) StartBackend(ctx context.Context, host byte) (*program.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := l.Start("instance", append([]string{self}, BackendArgs(l.at(host, portBackend))...)...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p, p.Poll(ctx, func() error {
		_, err := l.tell(ctx, host, "/")
		return err
	})
}
