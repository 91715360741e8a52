package dsr

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// Mode is where the program is attached to the interface.
type Mode uint8

// The modes, from the cheapest on.
const (
	// Auto tries the others in this order and takes the first that works. On
	// one end of a veth pair it tries TCX first: XDP in that driver sends only
	// if the other end receives as XDP does, does without checksums that were
	// left to the hardware, and splits what the sender had joined.
	Auto Mode = iota
	// XDPNative runs in the driver, before the kernel has made a packet of it.
	XDPNative
	// XDPGeneric runs in the stack, with XDP's rules; any driver will do.
	XDPGeneric
	// TCX runs in the stack, beside other programs.
	TCX
)

// String returns the mode's name as configuration has it.
func (m Mode) String() string {
	switch m {
	case Auto:
		return "auto"
	case XDPNative:
		return "xdp-native"
	case XDPGeneric:
		return "xdp-generic"
	case TCX:
		return "tcx"
	default:
		return fmt.Sprintf("mode %d", uint8(m))
	}
}

// linkFile is the name of the pinned attachment.
const linkFile = "link"

// attach attaches the program, or replaces the one that is attached.
func (p *Plane) attach() error {
	modes := []Mode{p.config.Mode}
	at, err := netlink.LinkByIndex(p.ifi.Index)
	if err != nil {
		return fmt.Errorf("finding the interface: %w", err)
	}
	if p.config.Mode == Auto {
		modes = []Mode{XDPNative, XDPGeneric, TCX}
		if at.Type() == "veth" {
			modes = []Mode{TCX, XDPNative, XDPGeneric}
		}
	}
	if ok, err := p.replace(modes); ok || err != nil {
		return err
	}
	var tried error
	for _, m := range modes {
		l, err := p.attachAs(m)
		if err != nil {
			tried = errors.Join(tried, fmt.Errorf("attaching as %v: %w", m, explainError(err)))
			continue
		}
		if err := l.Pin(filepath.Join(p.dir, linkFile)); err != nil {
			_ = l.Close() // the first error counts
			return fmt.Errorf("pinning the attachment: %w", err)
		}
		p.link, p.mode = l, m
		return nil
	}
	return tried
}

// attachAs attaches in one mode.
func (p *Plane) attachAs(m Mode) (link.Link, error) {
	switch m {
	case XDPNative:
		return link.AttachXDP(link.XDPOptions{Program: p.maps.XDP, Interface: p.ifi.Index, Flags: link.XDPDriverMode})
	case XDPGeneric:
		return link.AttachXDP(link.XDPOptions{Program: p.maps.XDP, Interface: p.ifi.Index, Flags: link.XDPGenericMode})
	case TCX:
		return link.AttachTCX(link.TCXOptions{Program: p.maps.TCX, Interface: p.ifi.Index, Attach: ebpf.AttachTCXIngress})
	default:
		return nil, fmt.Errorf("%v is no mode", m)
	}
}

// replace puts the program in the place of the one that an earlier process left,
// between two packets, if it is where it should be. Otherwise that is detached.
func (p *Plane) replace(modes []Mode) (bool, error) {
	file := filepath.Join(p.dir, linkFile)
	l, err := link.LoadPinnedLink(file, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening what is attached: %w", err)
	}
	mode, err := p.attachedAs(l)
	if err != nil {
		return false, errors.Join(err, l.Close())
	}
	for _, m := range modes {
		if m != mode {
			continue
		}
		program := p.maps.XDP
		if m == TCX {
			program = p.maps.TCX
		}
		if err := l.Update(program); err != nil {
			return false, errors.Join(fmt.Errorf("replacing what is attached: %w", err), l.Close())
		}
		p.link, p.mode = l, m
		return true, nil
	}
	if err := errors.Join(l.Close(), os.Remove(file)); err != nil {
		return false, fmt.Errorf("detaching what is attached: %w", err)
	}
	return false, nil
}

// attachedAs says how a pinned program is attached to this interface; Auto if it
// is not, because the interface was made anew.
func (p *Plane) attachedAs(l link.Link) (Mode, error) {
	info, err := l.Info()
	if err != nil {
		return Auto, fmt.Errorf("asking how the program is attached: %w", err)
	}
	if tcx := info.TCX(); tcx != nil && int(tcx.Ifindex) == p.ifi.Index {
		return TCX, nil
	}
	xdp := info.XDP()
	if xdp == nil || int(xdp.Ifindex) != p.ifi.Index {
		return Auto, nil
	}
	at, err := netlink.LinkByIndex(p.ifi.Index)
	if err != nil {
		return Auto, fmt.Errorf("asking how the program is attached: %w", err)
	}
	if x := at.Attrs().Xdp; x != nil && x.AttachMode == nl.XDP_ATTACHED_SKB {
		return XDPGeneric, nil
	}
	return XDPNative, nil
}
