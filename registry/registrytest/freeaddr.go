package registrytest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreeAddr is an address of 127.0.0.1 that is free, for a child process, which
// cannot be handed a listener. Its port is below those that the kernel gives to
// outgoing connections (32768 and up), and no other test is given it before this
// one ends, in this process or another: the port is held meanwhile at another
// address of this host.
func FreeAddr(t testing.TB) string {
	t.Helper()
	var lc net.ListenConfig
	for range 100 {
		port := 12_000 + rand.N(20_000)
		held, err := lc.Listen(t.Context(), "tcp", fmt.Sprintf("127.77.0.1:%d", port))
		if err != nil {
			continue
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		free, err := lc.Listen(t.Context(), "tcp", addr)
		if err != nil {
			held.Close()
			continue
		}
		free.Close()
		t.Cleanup(func() { held.Close() })
		return addr
	}
	t.Fatal("no port is free")
	return ""
}
