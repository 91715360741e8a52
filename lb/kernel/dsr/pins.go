package dsr

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// namespaceDir is where the programs of this network namespace are pinned. It has the
// namespace's cookie for its name, which no other gets until the machine starts anew.
func namespaceDir(pinDir string) (string, error) {
	if pinDir == "" {
		pinDir = DefaultPinDir
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("finding the network namespace: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return "", fmt.Errorf("finding the network namespace: %w", err)
	}
	return filepath.Join(pinDir, strconv.FormatUint(cookie, 10)), nil
}

// pinName is a directory's name for an interface. A BPF file system has none with
// points, as in eth0.100.
func pinName(ifi string) string { return strings.NewReplacer("%", "%25", ".", "%2E").Replace(ifi) }

// Sweep detaches the programs that an earlier process of this network namespace has
// pinned at pinDir, as in Config, for other interfaces than those to keep, and returns
// for which. Of other namespaces it unpins what is attached to nothing any more, as
// their interfaces are gone.
func Sweep(pinDir string, keep []string) (removed []string, err error) {
	own, err := namespaceDir(pinDir)
	if err != nil {
		return nil, fmt.Errorf("dsr: %w", err)
	}
	namespaces, err := entries(filepath.Dir(own))
	if err != nil {
		return nil, err
	}
	for _, ns := range namespaces {
		interfaces, err := entries(ns)
		if err != nil {
			return removed, err
		}
		for _, dir := range interfaces {
			name, err := url.PathUnescape(filepath.Base(dir))
			if err != nil {
				name = filepath.Base(dir) // not of pinName, so not to keep
			}
			if ns == own && slices.Contains(keep, name) || ns != own && !detached(dir) {
				continue
			}
			if err := os.RemoveAll(dir); err != nil {
				return removed, fmt.Errorf("dsr: unpinning the program of %s: %w", name, err)
			}
			_ = os.Remove(ns) // it stays as long as it has another
			if ns == own {
				removed = append(removed, name)
			}
		}
	}
	return removed, nil
}

// entries are the paths of the directories in one; none if that is not there.
func entries(dir string) ([]string, error) {
	in, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("dsr: looking for what is pinned: %w", err)
	}
	var paths []string
	for _, e := range in {
		if e.IsDir() {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// detached reports whether the attachment that is pinned in a directory is of an
// interface that is gone.
func detached(dir string) bool {
	l, err := link.LoadPinnedLink(filepath.Join(dir, linkFile), nil)
	if err != nil {
		return false // it is just being made, or not for us to judge
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false
	}
	if tcx := info.TCX(); tcx != nil {
		return tcx.Ifindex == 0
	}
	xdp := info.XDP()
	return xdp != nil && xdp.Ifindex == 0
}
