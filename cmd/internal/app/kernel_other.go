//go:build !linux

package app

import (
	"context"
	"errors"
	"syscall"

	"github.com/musterdns/muster/cmd/internal/admin"
	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
	"github.com/musterdns/muster/cmd/internal/metrics"
	"github.com/musterdns/muster/lb/dispatch"
)

// kernelProxies is what only Linux can do: modes nat and dsr, virtual addresses.
type kernelProxies struct{}

func (*server) buildKernel(cfg *config.Config) error {
	for _, l := range cfg.Proxy.Listeners {
		if l.Mode.Kernel() {
			return errors.New("proxy.listeners: " + l.Name + ": mode " + string(l.Mode) + " needs Linux")
		}
	}
	if len(cfg.Proxy.VIPs) > 0 {
		return errors.New("proxy.vips needs Linux")
	}
	return nil
}

func (*server) listenKernel() error             { return nil }
func (*server) runKernel(context.Context) error { return nil }

func (*kernelProxies) sockets() map[string]syscall.Conn { return nil }
func (*kernelProxies) terms() map[string]string         { return nil }
func (*kernelProxies) handOver(map[string]string)       {}
func (*kernelProxies) states() []api.ProxyListener      { return nil }
func (*kernelProxies) carried([]dispatch.Info)          {}
func (*kernelProxies) vipStates() []api.ProxyVIP        { return nil }

func (*kernelProxies) explain(admin.ProxyQuestion) (out api.ProxyExplanation, found bool, err error) {
	return out, false, nil
}

func (*server) kernelFindings() []api.Finding    { return nil }
func (*server) kernelFamilies() []metrics.Family { return nil }
