package vip

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// link finds the interface, which may have been made anew.
func (v *VIP) link() (netlink.Link, error) {
	link, err := netlink.LinkByName(v.config.Interface)
	if err != nil {
		return nil, fmt.Errorf("finding interface %s: %w", v.config.Interface, err)
	}
	return link, nil
}

// address is the VIP as the kernel takes it. Nobody else can have it: duplicate
// address detection would only delay it.
func (v *VIP) address() *netlink.Addr {
	a := v.config.Address
	out := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
	if a.Addr().Is6() {
		out.Flags = unix.IFA_F_NODAD
	}
	return out
}

// setAddress gives the address to the interface, for what is left until the
// deadline less the kernel's delay, or changes how long it has it.
func (v *VIP) setAddress(deadline time.Time) error {
	link, err := v.link()
	if err != nil {
		return err
	}
	// The kernel counts whole seconds; 0 would be for ever.
	left := int((time.Until(deadline) - kernelDelay) / time.Second)
	if left < 1 {
		return fmt.Errorf("the lease ends at %v, which is too soon to set the address of %s", deadline, v.config.Interface)
	}
	a := v.address()
	a.ValidLft, a.PreferedLft = left, left
	if err := netlink.AddrReplace(link, a); err != nil {
		return fmt.Errorf("giving %v to interface %s: %w", v.config.Address, v.config.Interface, err)
	}
	return nil
}

// removeAddress takes the address from the interface; the kernel may have done so.
func (v *VIP) removeAddress() error {
	link, err := v.link()
	if err != nil {
		return err
	}
	if err := netlink.AddrDel(link, v.address()); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("taking %v from interface %s: %w", v.config.Address, v.config.Interface, err)
	}
	return nil
}
