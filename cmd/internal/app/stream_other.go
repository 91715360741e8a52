//go:build !linux

package app

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"github.com/musterdns/muster/cmd/internal/admin"
	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/cmd/internal/metrics"
)

// stream is one listener of mode tcp or udp, which need epoll and splice.
type stream struct {
	*unit

	cfg config.Listener
}

func (s *server) buildStream(l *config.Listener, _ func(string) *os.File) (*stream, error) {
	return nil, errors.New("mode " + string(l.Mode) + " needs Linux")
}

func opaque(syscall.Conn) error { return nil }

func (*stream) listen() error        { return nil }
func (*stream) addr() netip.AddrPort { return netip.AddrPort{} }

func (*stream) state() api.ProxyListener                         { return api.ProxyListener{} }
func (*stream) explain(admin.ProxyQuestion) api.ProxyExplanation { return api.ProxyExplanation{} }

func (*stream) sockets() map[string]syscall.Conn { return nil }

func (*server) streamFamilies() []metrics.Family { return nil }
