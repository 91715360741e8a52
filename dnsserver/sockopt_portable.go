//go:build unix && (!linux || portable)

package dnsserver

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// receiveBuffer is what each UDP socket asks for, in octets; systems that allow
// less give less.
const receiveBuffer = 4 << 20

// control sets a UDP socket up before it is bound.
func control(c syscall.RawConn, _ netip.Addr) error {
	var err error
	controlErr := c.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			err = fmt.Errorf("setting SO_REUSEPORT: %w", err)
			return
		}
		for size := receiveBuffer; size > 0; size /= 2 {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size) == nil {
				return
			}
		}
	})
	if controlErr != nil {
		return controlErr
	}
	return err
}

// socketDrops is not told by these systems.
func socketDrops(uintptr) uint64 { return 0 }
