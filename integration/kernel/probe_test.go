package kernel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/musterdns/muster/integration/fault"
	"github.com/musterdns/muster/integration/netlab"
	"github.com/musterdns/muster/integration/program"
)

// A probe is a process that asks the virtual address all the time, on a machine of
// its own, and writes down when it asked and who answered.

// The verbs that make this program a probe.
const (
	probeVerb    = "ask-all-the-time"
	probeARPVerb = "ask-who-has-it"
)

const (
	// probeInterval lies between two questions.
	probeInterval = 10 * time.Millisecond
	// probePatience is how long an answer is waited for.
	probePatience = 200 * time.Millisecond
)

// answer is one answer: who gave it did so between start and end, Unix
// nanoseconds of the clock that all machines share.
type answer struct {
	what       string // was asked: an address and port, or "arp"
	start, end int64
	who        string // an address, or that of its interface
}

// probe is a probe that runs.
type probe struct {
	process *program.Process
	file    string
}

// startProbe starts a probe of targets on a machine.
func startProbe(t *testing.T, l *fault.Lab, machine string, argv ...string) *probe {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	p := &probe{file: l.Path("answers-" + machine + argv[0])}
	must(t, os.WriteFile(p.file, nil, 0o600))
	p.process, err = l.Start("probe on "+machine, append(netlab.On(machine, self, argv[0], p.file), argv[1:]...)...)
	must(t, err)
	return p
}

// answers are those until now.
func (p *probe) answers(t *testing.T) []answer {
	t.Helper()
	must(t, p.process.Ended())
	text, err := os.ReadFile(p.file)
	must(t, err)
	text = text[:bytes.LastIndexByte(text, '\n')+1] // it may be writing a line
	var out []answer
	for line := range strings.Lines(string(text)) {
		var a answer
		if _, err := fmt.Sscan(line, &a.what, &a.start, &a.end, &a.who); err != nil {
			t.Fatalf("the probe wrote %q: %v", line, err)
		}
		out = append(out, a)
	}
	return out
}

// runProbe is a probe's process: it asks the targets in turn over connections of
// their own, which machine forwarded them to the instance.
func runProbe(file string, targets []string) error {
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	pace := time.NewTicker(probeInterval)
	defer pace.Stop()
	for {
		for _, target := range targets {
			<-pace.C
			start := time.Now().UnixNano()
			who, err := forwarder(target)
			if err != nil {
				continue
			}
			if _, err := fmt.Fprintln(out, target, start, time.Now().UnixNano(), who); err != nil {
				return err
			}
		}
	}
}

// forwarder asks which machine forwards to an instance.
func forwarder(addr string) (string, error) {
	c, err := dialWithin(addr, probePatience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.get(viaPath)
}

// The first and the number of the hosts that a probe of ARP asks as, in turn: an
// answer says by that which question it is for. No machine has them.
const (
	probeHost  = 130
	probeHosts = 100
)

// runARPProbe is a probe's process: it asks the link who has the virtual address.
func runARPProbe(file string) error {
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, syscall.ETH_P_ARP))
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	to := &syscall.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}
	wait := syscall.NsecToTimeval(int64(probeInterval))
	if err := errors.Join(syscall.Bind(fd, to), syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &wait)); err != nil {
		return err
	}
	var sent [probeHosts]int64
	for n := 0; ; n = (n + 1) % probeHosts {
		sent[n] = time.Now().UnixNano()
		if err := syscall.Sendto(fd, arpRequest(link.HardwareAddr, probeHost+n), 0, to); err != nil {
			return err
		}
		for until := time.Now().Add(probeInterval); time.Now().Before(until); {
			var frame [128]byte
			size, _, err := syscall.Recvfrom(fd, frame[:], 0)
			if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil {
				return err
			}
			who, host, ok := arpReply(frame[:size])
			if n := host - probeHost; ok && n >= 0 && n < probeHosts {
				if _, err := fmt.Fprintln(out, "arp", sent[n], time.Now().UnixNano(), who); err != nil {
					return err
				}
			}
		}
	}
}

// arpRequest asks who has the virtual address, as a host of the network (RFC 826).
func arpRequest(mac net.HardwareAddr, host int) []byte {
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac...)
	frame = binary.BigEndian.AppendUint16(frame, syscall.ETH_P_ARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, lengths, request
	frame = append(append(frame, mac...), net.ParseIP(fmt.Sprint(network, host)).To4()...)
	return append(append(frame, make([]byte, 6)...), net.ParseIP(vip).To4()...)
}

// arpReply is who has the virtual address, and which host is told.
func arpReply(frame []byte) (who string, host int, ok bool) {
	const header, size = 14, 28
	if len(frame) < header+size {
		return "", 0, false
	}
	b := frame[header : header+size]
	if binary.BigEndian.Uint16(b[6:]) != 2 || !net.IP(b[14:18]).Equal(net.ParseIP(vip)) {
		return "", 0, false
	}
	return net.HardwareAddr(b[8:14]).String(), int(b[27]), true
}
