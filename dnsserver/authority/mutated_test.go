package authority_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/dnsserver/dnstest"
)

// mutatedPackets is how many are sent over each transport in a round; MUTATED says
// another number.
const mutatedPackets = 1000

// TestServer_mutatedPackets sends what was once a message over every transport alike: the
// server never answers a response, answers only what it should and legibly, answers the
// next good question, and holds no more memory after three rounds than after one.
func TestServer_mutatedPackets(t *testing.T) {
	n := mutatedPackets
	if text := os.Getenv("MUTATED"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	p := newPrimary(t)
	seeds := seedMessages(t)
	var heaps []uint64
	for round := range 3 {
		var transports sync.WaitGroup
		for i, transport := range dnstest.Transports() {
			c := p.server.Carrier(transport)
			rnd := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			transports.Go(func() {
				defer c.Close()
				for k := range n {
					msg := mutate(rnd, seeds[rnd.IntN(len(seeds))])
					if transport == "quic" && len(msg) > 1 && rnd.IntN(8) > 0 {
						msg[0], msg[1] = 0, 0 // mostly what RFC 9250 section 4.2.1 wants
					}
					reply, err := c.Exchange(t.Context(), msg)
					if err == nil {
						err = fits(transport, msg, reply)
					}
					if err != nil {
						t.Errorf("round %d, packet %d over %s: %v\n%x\n%x", round, k, transport, err, msg, reply)
						return
					}
				}
				c.Close() // it may be about to be closed for the last packet
				good := seeds[0]
				if reply, err := c.Exchange(t.Context(), good); err != nil || len(reply) < 12 || reply[3]&15 != dns.RcodeSuccess {
					t.Errorf("round %d: %s then answers a good question with %x, %v", round, transport, reply, err)
				}
			})
		}
		transports.Wait()
		heaps = append(heaps, settledHeap())
	}
	st := p.server.Server.Server.Stats()
	if panics := st.UDP.Panics + st.TCP.Panics + st.TLS.Panics + st.HTTPS.Panics + st.QUIC.Panics; panics > 0 {
		t.Errorf("%d panics", panics)
	}
	t.Logf("heap after each round: %d KiB", []uint64{heaps[0] >> 10, heaps[1] >> 10, heaps[2] >> 10})
	if heaps[2] > heaps[0]+1<<20 {
		t.Errorf("the heap grows: %d octets after each round", heaps)
	}
}

// settledHeap is the octets that live after two collections, once the goroutines of
// connections that have ended are gone.
func settledHeap() uint64 {
	var least uint64
	for range 5 { // as long as it falls
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if least != 0 && m.HeapAlloc >= least {
			break
		}
		least = m.HeapAlloc
		<-time.After(100 * time.Millisecond)
	}
	return least
}

// seedMessages are messages of many kinds, the first of them a good question.
func seedMessages(t *testing.T) (seeds [][]byte) {
	t.Helper()
	add := func(edit func(*dns.Msg)) {
		m := new(dns.Msg)
		m.SetQuestion("h1.open.test.", dns.TypeA)
		m.Id = 0
		edit(m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, b)
	}
	option := func(o ...dns.EDNS0) func(*dns.Msg) {
		return func(m *dns.Msg) { m.SetEdns0(1232, true); m.IsEdns0().Option = o }
	}
	add(func(*dns.Msg) {})
	for _, o := range []dns.EDNS0{
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"},
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{192, 0, 2, 0}},
		&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE},
		&dns.EDNS0_PADDING{Padding: make([]byte, 40)}, &dns.EDNS0_EXPIRE{Code: dns.EDNS0EXPIRE, Empty: true},
		&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1, 2, 3}},
	} {
		add(option(o))
	}
	for _, typ := range []uint16{dns.TypeSOA, dns.TypeANY, dns.TypeAXFR, dns.TypeTSIG, dns.TypeNSEC, dns.TypeSRV, 65280} {
		add(func(m *dns.Msg) { m.Question[0].Qtype = typ })
	}
	for _, opcode := range []int{dns.OpcodeNotify, dns.OpcodeUpdate, dns.OpcodeStatus, 6} {
		add(func(m *dns.Msg) { m.Opcode = opcode })
	}
	// Transfers that are refused: those that are not are answered later than what comes next.
	add(func(m *dns.Msg) {
		m.Question[0] = dns.Question{Name: "example.test.", Qtype: dns.TypeAXFR, Qclass: dns.ClassINET}
	})
	add(func(m *dns.Msg) {
		m.SetIxfr("example.test.", 1, "ns1.example.test.", "hostmaster.example.test.")
		m.Id = 0
	})
	add(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]); m.Compress = true })
	add(func(m *dns.Msg) { m.Response = true })
	add(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY })
	for _, by := range []string{"key1.", "nobody."} {
		m := new(dns.Msg)
		m.SetQuestion("example.test.", dns.TypeSOA)
		m.Id = 0
		m.SetTsig(by, dns.HmacSHA256, 300, time.Now().Unix())
		b, _, err := dns.TsigGenerate(m, base64.StdEncoding.EncodeToString([]byte(transferSecret)), "", false)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, b)
	}
	return seeds
}

// mutate bends a message in a few places. Most of what comes of it is a question still.
func mutate(rnd *rand.Rand, seed []byte) []byte {
	b := slices.Clone(seed)
	for range 1 + rnd.IntN(6) {
		if len(b) == 0 {
			break
		}
		at := rnd.IntN(len(b))
		switch rnd.IntN(4) {
		case 0:
			b[at] ^= 1 << rnd.IntN(8)
		case 1:
			b[at] = []byte{0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff}[rnd.IntN(8)]
		case 2:
			b = slices.Delete(b, at, min(len(b), at+1+rnd.IntN(8)))
		default:
			more := make([]byte, 1+rnd.IntN(8))
			for i := range more {
				more[i] = byte(rnd.Uint32())
			}
			b = slices.Insert(b, at, more...)
		}
	}
	if len(b) > 2 && rnd.IntN(10) < 8 {
		b[2] &= 0x7f
	}
	return b
}

// fits says what is wrong with a reply; nil is none.
func fits(transport string, msg, reply []byte) error {
	switch {
	case reply == nil:
		return nil
	case len(msg) < 12:
		return fmt.Errorf("what has no header is answered")
	case msg[2]&0x80 != 0:
		return fmt.Errorf("a response is answered")
	case len(reply) < 12 || reply[2]&0x80 == 0 || reply[0] != msg[0] || reply[1] != msg[1]:
		return fmt.Errorf("the reply is no response to it")
	case transport == "udp" && len(reply) > 1232:
		return fmt.Errorf("%d octets over UDP", len(reply))
	}
	m := new(dns.Msg)
	if err := m.Unpack(reply); err != nil {
		return fmt.Errorf("the reply is not legible: %w", err)
	}
	if transport == "udp" && len(reply) > 512 && m.IsEdns0() == nil {
		return fmt.Errorf("%d octets over UDP to a client without EDNS", len(reply))
	}
	return nil
}
