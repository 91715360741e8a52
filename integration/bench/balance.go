package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/musterdns/muster/integration/fault"
)

const (
	balanceHosts = 20
	// chiLimit is what chi-square with 19 degrees of freedom exceeds once in
	// 1,000 draws that are as they should be.
	chiLimit = 43.8
	// hashFactor is the bound of the bounded hash, and zipfExponent what its
	// keys are drawn with, the hottest one making up a fifth or so of them.
	hashFactor   = 1.25
	zipfExponent = 1.1
	zipfKeys     = 10_000
	// busyDelay keeps many requests under way without keeping the cores busy.
	busyDelay = 100 * time.Millisecond
	busyConns = 200
	// fastDelay is that of all instances but one, which takes slowTimes it.
	fastDelay = 5 * time.Millisecond
	slowTimes = 10
)

// balance is one policy through the real proxy, and its bound.
type balance struct {
	name, record string
	conns, n     int // clients, each with one request under way, and their requests
	delay        time.Duration
	slow         time.Duration         // of the first instance; 0: as the others
	weight       func(host int) int    // of an instance; nil: 1
	key          func(n uint64) string // what is hashed; nil: nothing
	judge        func(b *balance, s *balanceShares) (figure, bound string, ok bool)
}

// balanceShares is who answered, and how many requests were under way there at
// once at most.
type balanceShares struct {
	answered, busiest [balanceHosts]int
	moved             int // keys that more than one instance answered
}

// uniqueKey is another key for each request; thrice the same, to see it stay.
func uniqueKey(n uint64) string { return fmt.Sprint("user-", n/3) }

// zipfKey draws a key by Zipf's law.
func zipfKey(n uint64) string {
	return fmt.Sprint("user-", rand.NewZipf(rand.New(rand.NewPCG(n, 1)), zipfExponent, 1, zipfKeys-1).Uint64())
}

var balances = []balance{
	{name: "round-robin", record: `"policy":"round-robin"`, conns: 32, n: 20_000, judge: judgeEven},
	{name: "weighted 1:2:3:4", record: `"policy":"weighted"`, conns: 32, n: 20_000, weight: func(host int) int { return 1 + host%4 }, judge: judgeChi},
	{name: "round-robin 1:2:3:4", record: `"policy":"round-robin"`, conns: 32, n: 20_000, weight: func(host int) int { return 1 + host%4 }, judge: judgeEven},
	{name: "least-loaded", record: `"policy":"least-loaded"`, conns: busyConns, n: 10_000, delay: busyDelay, judge: judgeBusiest},
	{name: "peak-ewma, one 10 times as slow", record: `"policy":"least-loaded","proxy_policy":"peak-ewma"`, conns: 40, n: 20_000, delay: fastDelay, slow: slowTimes * fastDelay, judge: judgeSlow},
	{name: "hash", record: `"policy":"hash"`, conns: 32, n: 30_000, key: uniqueKey, judge: judgeHash},
	{name: "hash, Zipf keys", record: `"policy":"hash"`, conns: busyConns, n: 10_000, delay: busyDelay, key: zipfKey, judge: judgeUnbounded},
	{name: "hash bound 1.25, Zipf keys", record: fmt.Sprintf(`"policy":"hash","hash_bound":%g`, hashFactor), conns: busyConns, n: 10_000, delay: busyDelay, key: zipfKey, judge: judgeBounded},
}

// runBalance measures how each policy spreads requests; see the package's
// comment.
func runBalance(ctx context.Context, args []string, out io.Writer) error {
	flags, muster := faultFlags("balance", out)
	if err := parse(flags, args); err != nil {
		return err
	}
	return inLab(*muster, func(l *fault.Lab) error {
		e, err := l.Etcd(ctx)
		if err != nil {
			return err
		}
		defer e.Close()
		for host := range balanceHosts {
			if _, err := l.StartBackend(ctx, balanceHost(host)); err != nil {
				return err
			}
		}
		var more strings.Builder
		more.WriteString(l.Proxy("none") + "  routes:\n")
		for i := range balances {
			fmt.Fprintf(&more, "    - {name: p%[1]d, path: /p%[1]d, service: p%[1]d, hash_on: \"header:X-Key\"}\n", i)
			if err := balances[i].register(ctx, l, e, i); err != nil {
				return err
			}
		}
		if _, err := l.Run(ctx, fault.Settings{Etcd: e.URL, More: more.String()}); err != nil {
			return err
		}
		return measureBalances(ctx, l, out)
	})
}

// balanceHost is where an instance is.
func balanceHost(host int) byte { return failoverHosts[0] + byte(host) }

// register registers all instances of the service of a policy.
func (b *balance) register(ctx context.Context, l *fault.Lab, e *fault.Etcd, i int) error {
	service := fmt.Sprintf("p%d", i)
	if _, err := e.Put(ctx, fault.Keys+"services/"+service, "{"+b.record+"}"); err != nil {
		return err
	}
	for host := range balanceHosts {
		addr := l.BackendAddr(balanceHost(host))
		record := fmt.Sprintf(`{"address":%q,"port":%d,"weight":%d}`, addr.Addr(), addr.Port(), b.weightOf(host))
		if _, err := e.Put(ctx, fault.Instance(service, fmt.Sprintf("i%d", host)), record); err != nil {
			return err
		}
	}
	return nil
}

func (b *balance) weightOf(host int) int {
	if b.weight == nil {
		return 1
	}
	return b.weight(host)
}

func measureBalances(ctx context.Context, l *fault.Lab, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d instances\nbalance\trequests\tunder way\tmeasured\tbound\n", balanceHosts)
	var errs []error
	for i := range balances {
		b := &balances[i]
		s, err := b.measure(ctx, l, i)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		figure, bound, ok := b.judge(b, &s)
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", b.name, b.n, b.conns, figure, bound)
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %s, want %s", b.name, figure, bound))
		}
	}
	w.Flush()
	return errors.Join(errs...)
}

// measure makes the requests of one policy.
func (b *balance) measure(ctx context.Context, l *fault.Lab, i int) (s balanceShares, err error) {
	index := map[string]int{}
	for host := range balanceHosts {
		index[l.BackendAddr(balanceHost(host)).String()] = host
		as := fault.Behaviour{Delay: b.delay}
		if host == 0 && b.slow > 0 {
			as.Delay = b.slow
		}
		if err := l.Behave(ctx, balanceHost(host), as); err != nil {
			return s, err
		}
	}
	var next atomic.Uint64
	var mu sync.Mutex // guards s and keys
	keys := map[string]string{}
	err = together(b.conns, func(int) error {
		a, err := dialAsker(ctx, l.HTTPAddr(), nil)
		if err != nil {
			return err
		}
		defer a.c.Close()
		for n := next.Add(1); n <= uint64(b.n) && ctx.Err() == nil; n = next.Add(1) {
			key := ""
			if b.key != nil {
				key = b.key(n)
			}
			var body bytes.Buffer
			if _, err := a.get(fmt.Sprintf("GET /p%d HTTP/1.1\r\nHost: shop\r\nX-Key: %s\r\n\r\n", i, key), time.Now().Add(startTimeout), &body); err != nil {
				return err
			}
			from, _, _ := strings.Cut(body.String(), " ")
			mu.Lock()
			s.answered[index[from]]++
			if before, ok := keys[key]; ok && before != from {
				s.moved++
			}
			keys[key] = from
			mu.Unlock()
		}
		return ctx.Err()
	})
	for host := range balanceHosts {
		if err == nil {
			s.busiest[host], err = l.Busiest(ctx, balanceHost(host))
		}
	}
	return s, err
}

// want is an instance's part of the requests by its weight.
func (b *balance) want(host int) float64 {
	sum := 0
	for h := range balanceHosts {
		sum += b.weightOf(h)
	}
	return float64(b.n*b.weightOf(host)) / float64(sum)
}

// judgeEven holds each instance to its part, within one request a unit of
// weight.
func judgeEven(b *balance, s *balanceShares) (figure, bound string, ok bool) {
	most, limit := 0.0, 0.0
	for host, n := range s.answered {
		most = max(most, math.Abs(float64(n)-b.want(host)))
		limit = max(limit, float64(b.weightOf(host)))
	}
	return fmt.Sprintf("at most %.1f requests off", most), fmt.Sprintf("%.0f", limit), most <= limit
}

// chi is chi-square of the shares against their weights.
func (b *balance) chi(s *balanceShares) (sum float64) {
	for host, n := range s.answered {
		d := float64(n) - b.want(host)
		sum += d * d / b.want(host)
	}
	return sum
}

func judgeChi(b *balance, s *balanceShares) (figure, bound string, ok bool) {
	chi := b.chi(s)
	return fmt.Sprintf("chi-square %.1f", chi), fmt.Sprintf("%.1f (p 0.001)", chiLimit), chi <= chiLimit
}

// judgeHash counts keys, not requests: each is asked for three times.
func judgeHash(b *balance, s *balanceShares) (figure, bound string, ok bool) {
	chi := b.chi(s) / 3
	return fmt.Sprintf("chi-square of keys %.1f, %d keys moved", chi, s.moved), fmt.Sprintf("%.1f (p 0.001), 0", chiLimit), chi <= chiLimit && s.moved == 0
}

// judgeBusiest holds the busiest instance to what two choices come to.
func judgeBusiest(b *balance, s *balanceShares) (figure, bound string, ok bool) {
	const twoChoices = 1.45 // times the mean; a random draw has 1.6 and more
	mean := float64(b.conns) / balanceHosts
	most := float64(maxOf(s.busiest))
	return fmt.Sprintf("busiest %.2f times the mean under way", most/mean), fmt.Sprint(twoChoices), most <= twoChoices*mean
}

func judgeSlow(b *balance, s *balanceShares) (figure, bound string, ok bool) {
	const slowShare = 0.03
	share := float64(s.answered[0]) / float64(b.n)
	return fmt.Sprintf("the slow one has %.2f %% of the requests", 100*share), fmt.Sprintf("%g %%", 100*slowShare), share < slowShare
}

// judgeUnbounded is what the bounded hash is to be compared with.
func judgeUnbounded(b *balance, s *balanceShares) (figure, bound string, ok bool) {
	mean := float64(b.conns) / balanceHosts
	return fmt.Sprintf("busiest %.2f times the mean under way, %.2f of the requests", float64(maxOf(s.busiest))/mean, float64(maxOf(s.answered))*balanceHosts/float64(b.n)), "none", true
}

// judgeBounded holds each instance to ceil(1.25 x (under way + 1) / instances)
// at any moment (Mirrokni, Thorup and Zadimoghaddam 2018).
func judgeBounded(b *balance, s *balanceShares) (figure, bound string, ok bool) {
	limit := math.Ceil(hashFactor * float64(b.conns+1) / balanceHosts)
	mean := float64(b.conns) / balanceHosts
	most := float64(maxOf(s.busiest))
	return fmt.Sprintf("busiest %.2f times the mean under way, %.2f of the requests", most/mean, float64(maxOf(s.answered))*balanceHosts/float64(b.n)),
		fmt.Sprintf("%.2f: %g of %d", limit/mean, limit, b.conns), most <= limit
}

func maxOf(list [balanceHosts]int) (most int) {
	for _, n := range list {
		most = max(most, n)
	}
	return most
}
