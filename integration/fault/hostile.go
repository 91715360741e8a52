package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"

	"github.com/miekg/dns"
)

// forged is what a hostile value would have the log say.
const forged = `{"time":"2001-01-01T00:00:00Z","level":"ERROR","msg":"forged"}`

// hostileValues are what a hostile registrant writes; each gets a number in
// place of its verb. All but the last break a rule.
var hostileValues = []string{
	``,
	`{`,
	`[%d]`,
	`null`,
	`"%d"`,
	"\x00\x01\xff%d",
	"{\"address\":\"10.0.0.1\n" + forged + "\n\",\"port\":%d}",
	"x%d\r\n" + forged + "\r\n",
	"\x1b[2J%d\x1b]0;title\x07\u2028" + forged,
	`{"address":"10.0.0.1","port":-%d}`,
	`{"address":"10.0.0.1","port":7%d777777777777777777777}`,
	`{"address":"10.0.0.1","port":80.%d5}`,
	`{"address":"10.0.0.%d","port":"eighty"}`,
	`{"address":"300.0.0.%d","port":80}`,
	`{"address":"::ffff:0:0:0:0:0:%d","port":80}`,
	`{"address":"fe80::1%%eth%d","port":80}`,
	`{"addresses":"10.0.0.%d","port":80}`,
	`{"address":{"a":[{"b":%d}]},"port":80}`,
	`{"address":"10.0.0.1","port":80,"ttl":-%d}`,
	`{"address":"10.0.0.1","port":80,"ttl":9223372036854775%d}`,
	`{"address":"10.0.0.1","port":80,"ttl":1e%d9}`,
	`{"address":"10.0.0.1","port":80,"weight":6553%d6}`,
	`{"address":"10.0.0.1","port":80,"checks":[{"type":"exec","path":"/bin/sh -c %d"}]}`,
	`{"address":"10.0.0.1","port":80,"checks":{"type":"http%d"}}`,
	`{"address":"10.0.0.1","port":80,"ports":{"../%d":1}}`,
	`{"address":"10.0.0.1","port":80,"address":"10.0.0.%d"`,
	strings.Repeat(`{"meta":`, 5000) + `%d`,
	strings.Repeat(`[`, 20000) + `%d`,
	`{"address":"10.0.0.1","port":80,"meta":{"big":"` + strings.Repeat("A", 70<<10) + `%d"}}`,
}

// hostileKeys are where; each gets a number in place of its verb. A good
// value would be refused in some of them, and none is any good instance's.
var hostileKeys = []string{
	"instances/hostile%d/one",
	"instances/Hostile%d/ONE",
	"instances/hostile/%d/a/b/c",
	"instances//%d",
	"instances/%d/",
	"instances/host\nile%d/" + forged,
	"instances/-%d-/x_y",
	"instances/hostile/\x00%d",
	"instances/\xff\xfe%d/one",
	"instances/" + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa%d/one",
	"instances/_why.good%d/one",
	"services/hostile%d",
	"admin/hostile%d/one",
	"load/hostile%d/one",
	"members/hostile%d",
	"nonsense/%d",
}

// hostile yields n hostile keys with hostile values, the same each time.
func hostile(n int) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		rnd := rand.New(rand.NewPCG(1, 2))
		for i := range n {
			// The largest are rare: etcd has to hold them all.
			v := rnd.IntN(len(hostileValues))
			if v >= len(hostileValues)-3 && rnd.IntN(10) > 0 {
				v = rnd.IntN(len(hostileValues) - 3)
			}
			key := fmt.Sprintf(hostileKeys[rnd.IntN(len(hostileKeys))], i)
			value := strings.ReplaceAll(hostileValues[v], "%d", fmt.Sprint(i%10))
			if !yield(Keys+key, strings.ReplaceAll(value, "%%", "%")) {
				return
			}
		}
	}
}

// HostileResult is what came of hostile keys.
type HostileResult struct {
	Good, Served int // good services, and those that were answered right
	Bad          int // hostile keys
	LogLines     int // about a record that cannot be used
	LongestLine  int // of the log, octets
	Forged       []string
	RSS, RSSMore int64 // bytes in the end, and more than before the hostile keys
	Problems     int   // that the server counts
	Findings     []Finding
	FindingsSize int // of muster doctor's output, octets
	Panics       int
}

// Finding is one of muster doctor's.
type Finding struct {
	Severity, Subject, Problem, Mend string
}

// Hostile puts hostile keys among good ones, while the server watches and again
// before it starts, and sees what it makes of them.
func Hostile(ctx context.Context, l *Lab, good, bad int) (HostileResult, error) {
	r := HostileResult{Good: good, Served: good, Bad: bad}
	e, err := l.Etcd(ctx)
	if err != nil {
		return r, err
	}
	defer e.Close()
	if err := e.Load(ctx, Instances(good, 1)); err != nil {
		return r, err
	}
	s, err := l.Run(ctx, Settings{Etcd: e.URL})
	if err != nil {
		return r, err
	}
	before, err := s.RSS()
	if err != nil {
		return r, err
	}
	for key, value := range hostile(bad) {
		if _, err := e.Put(ctx, key, value); err != nil {
			return r, fmt.Errorf("putting %q: %w", key, err)
		}
	}
	if err := s.knows(ctx, e); err != nil {
		return r, err
	}
	if r.RSS, err = s.RSS(); err != nil {
		return r, err
	}
	r.RSSMore = r.RSS - before
	if err := r.inspect(ctx, l, s); err != nil {
		return r, err
	}
	// The same as one state to be listed.
	s.Stop()
	if s, err = l.Serve(); err != nil {
		return r, err
	}
	if err := s.Ready(ctx); err != nil {
		return r, err
	}
	return r, r.ask(ctx, s)
}

// knows waits until the server has seen everything that was put before.
func (s *Server) knows(ctx context.Context, e *Etcd) error {
	if _, err := e.Put(ctx, Instance("marker", "one"), "10.9.9.9:80"); err != nil {
		return err
	}
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err = c.Await(ctx, "marker."+Zone, dns.TypeA, Has("10.9.9.9"))
	return err
}

// inspect asks, reads the log and what muster doctor says.
func (r *HostileResult) inspect(ctx context.Context, l *Lab, s *Server) error {
	if err := r.ask(ctx, s); err != nil {
		return err
	}
	log, err := s.Log()
	if err != nil {
		return err
	}
	for line := range strings.Lines(log) {
		var entry struct{ Msg, Key string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Msg == "forged" {
			r.Forged = append(r.Forged, line)
		}
		if entry.Key != "" {
			r.LogLines++
		}
		r.LongestLine = max(r.LongestLine, len(line))
	}
	for _, transport := range []string{"udp", "tcp"} {
		n, err := s.Metric(ctx, `muster_dns_panics_total{transport="`+transport+`"}`)
		if err != nil {
			return err
		}
		r.Panics += int(n)
	}
	n, err := s.Metric(ctx, `muster_registry_problems{zone="`+Zone+`"}`)
	if err != nil {
		return err
	}
	r.Problems = int(n)
	// It fails, since something is wrong; what it printed counts.
	out, _ := l.CLI(ctx, "doctor", "-o", "json")
	r.FindingsSize = len(out)
	var doctor struct{ Findings []Finding }
	if err := json.Unmarshal([]byte(out), &doctor); err != nil {
		return fmt.Errorf("muster doctor: %w: %.500s", err, out)
	}
	r.Findings = doctor.Findings
	return nil
}

// ask asks for every good service; the worst of all times counts.
func (r *HostileResult) ask(ctx context.Context, s *Server) error {
	c, err := Dial(ctx, s.DNS)
	if err != nil {
		return err
	}
	defer c.Close()
	served := 0
	for i := range r.Good {
		m, err := c.Ask(ServiceName(i)+"."+Zone, dns.TypeA)
		if err != nil {
			return err
		}
		if right(1)(m) == nil {
			served++
		}
	}
	r.Served = min(r.Served, served)
	return s.Ended()
}
