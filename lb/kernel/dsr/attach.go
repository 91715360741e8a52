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
	// one end of a veth pair it takes TCX or XDPGeneric: XDP in that driver sends
	// only if the other end receives as XDP does, does without checksums that were
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

// Names of the pinned attachment, and of one that is about to take its place.
const (
	linkFile    = "link"
	newLinkFile = "link-new"
)

// modesFor are the modes to try, in this order.
func (p *Plane) modesFor(kind string) []Mode {
	switch {
	case p.config.Mode != Auto:
		return []Mode{p.config.Mode}
	case kind == veth:
		return []Mode{TCX, XDPGeneric}
	default:
		return []Mode{XDPNative, XDPGeneric, TCX}
	}
}

// veth is the kind of link that ends of a pair have.
const veth = "veth"

// attach attaches the program. What an earlier process has attached is replaced
// between two packets: in its place, or by another that is attached before it goes.
// Where that is in the way, as one kind of XDP is of the other, it stays if it is
// among the modes to try, and else goes first.
func (p *Plane) attach() error {
	at, err := netlink.LinkByIndex(p.ifi.Index)
	if err != nil {
		return fmt.Errorf("finding the interface: %w", err)
	}
	p.veth = at.Type() == veth
	modes := p.modesFor(at.Type())
	old, mode, err := p.attached()
	if err != nil {
		return err
	}
	ok, tried := p.tryModes(modes, old, mode)
	if old == nil || ok {
		return tried
	}
	if err := errors.Join(old.Close(), os.Remove(filepath.Join(p.dir, linkFile))); err != nil {
		return fmt.Errorf("detaching what is attached: %w", err)
	}
	_, tried = p.tryModes(modes, nil, Auto)
	return tried
}

// tryModes attaches in the first mode that works, and lets go of what was attached
// before in a mode, if anything. If none works, what was attached still is.
func (p *Plane) tryModes(modes []Mode, old link.Link, mode Mode) (ok bool, err error) {
	var tried error
	for _, m := range modes {
		if old != nil && m == mode {
			program := p.maps.XDP
			if m == TCX {
				program = p.maps.TCX
			}
			if err := old.Update(program); err != nil {
				return false, fmt.Errorf("replacing what is attached: %w", err)
			}
			p.link, p.mode = old, m
			return true, nil
		}
		l, err := p.attachAs(m)
		if err != nil {
			tried = errors.Join(tried, fmt.Errorf("attaching as %v: %w", m, explainError(err)))
			continue
		}
		if err := p.pinLink(l); err != nil {
			_ = l.Close() // the first error counts
			return false, err
		}
		if old != nil {
			_ = old.Close() // it is pinned no more, so that this detaches it
		}
		p.link, p.mode = l, m
		return true, nil
	}
	return false, tried
}

// pinLink pins an attachment in the place of the one before.
func (p *Plane) pinLink(l link.Link) error {
	fresh := filepath.Join(p.dir, newLinkFile)
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpinning what an earlier process did not finish: %w", err)
	}
	if err := l.Pin(fresh); err != nil {
		return fmt.Errorf("pinning the attachment: %w", err)
	}
	if err := os.Rename(fresh, filepath.Join(p.dir, linkFile)); err != nil {
		return fmt.Errorf("pinning the attachment: %w", err)
	}
	return nil
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

// attached opens what an earlier process has attached to this interface; nil if
// there is nothing.
func (p *Plane) attached() (link.Link, Mode, error) {
	file := filepath.Join(p.dir, linkFile)
	l, err := link.LoadPinnedLink(file, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Auto, nil
	}
	if err != nil {
		return nil, Auto, fmt.Errorf("opening what is attached: %w", err)
	}
	mode, err := p.attachedAs(l)
	if err != nil {
		return nil, Auto, errors.Join(err, l.Close())
	}
	if mode == Auto {
		if err := errors.Join(l.Close(), os.Remove(file)); err != nil {
			return nil, Auto, fmt.Errorf("unpinning what is attached no more: %w", err)
		}
		return nil, Auto, nil
	}
	return l, mode, nil
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
