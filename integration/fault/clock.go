package fault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// jumpVar has the clock of a program from BuildJumping jump, once: "SECONDS:BY", seconds
// after its start, by so many.
const jumpVar = "MUSTER_TEST_JUMP"

// jumpAfter is when the clock jumps, in seconds after the start: all is settled by then.
const jumpAfter = 15

// jumpSource is what package time gets. Monotonic time goes on as it does when a real clock
// is set.
const jumpSource = `package time

import "syscall"

var jumpAfter, jumpBy = func() (after, by int64) {
	text, _ := syscall.Getenv("` + jumpVar + `")
	number := func() (n int64) {
		negative := len(text) > 0 && text[0] == '-'
		if negative {
			text = text[1:]
		}
		for len(text) > 0 && text[0] >= '0' && text[0] <= '9' {
			n, text = 10*n+int64(text[0]-'0'), text[1:]
		}
		if len(text) > 0 {
			text = text[1:]
		}
		if negative {
			return -n
		}
		return n
	}
	after = number() * 1e9
	return after, number()
}()

func jumped(mono int64) int64 {
	if jumpBy != 0 && mono > jumpAfter {
		return jumpBy
	}
	return 0
}
`

// BuildJumping builds muster, from the module in the working directory, with a clock that
// jumps: a Go program reads the clock without a call that could be taken in between, so the
// library that reads it is another.
func BuildJumping(ctx context.Context, dir string) (binary string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	file := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	const now = "\tmono -= startNano\n\tsec += unixToInternal - minWall\n"
	if strings.Count(string(text), now) != 1 {
		return "", fmt.Errorf("%s: time.Now is not as it was", file)
	}
	changed := strings.Replace(string(text), now, now+"\tsec += jumped(mono)\n", 1)
	overlay := map[string]string{file: filepath.Join(dir, "time.go"), filepath.Join(filepath.Dir(file), "jump.go"): filepath.Join(dir, "jump.go")}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return "", err
	}
	for name, text := range map[string]string{"time.go": changed, "jump.go": jumpSource, "overlay.json": string(list)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	binary = filepath.Join(dir, "muster")
	if out, err := exec.CommandContext(ctx, "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./cmd/muster").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return binary, nil
}

// Jump is what a server with a jump of its clock did.
type Jump struct {
	Checked, Leased Tally         // answers for instances that are checked, and for those under leases, over the jump
	Clock           time.Duration // by what the server's clock is off, as its BADTIME tells
	Slack           time.Duration // from the inception of its signatures to its now
	Left            time.Duration // from its now to their expiration
}

// The names and secrets of a jump.
const (
	jumpZone   = "signed.test."
	jumpPrefix = "/signed/v1/"
	jumpKey    = "key1."
	jumpFleet  = 12
)

// ClockJump has a server's clock jump, of a lab whose binary is BuildJumping's, and sees
// what becomes of instances that are checked and under leases, of TSIG and of signatures.
func ClockJump(ctx context.Context, l *Lab, by time.Duration) (*Jump, error) {
	e, err := l.Etcd(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	fleet, err := l.StartFleet(ctx, jumpFleet)
	if err != nil {
		return nil, err
	}
	defer fleet.Close()
	if err := e.Load(ctx, fleet.Records(FleetService, 0, jumpFleet)); err != nil {
		return nil, err
	}
	if err := e.keepLeased(ctx); err != nil {
		return nil, err
	}
	secret := base64.StdEncoding.EncodeToString([]byte("a secret of thirty-two octets...."))
	s, err := l.serveJumping(ctx, e.URL, secret, by)
	if err != nil {
		return nil, err
	}
	out := &Jump{}
	if err := out.signatures(ctx, s.DNS); err != nil { // which are kept, and not to be served when they are of the future
		return nil, err
	}
	if err := out.ask(ctx, s); err != nil {
		return nil, err
	}
	if out.Clock, err = clockOff(ctx, s.DNS, secret); err != nil {
		return nil, err
	}
	return out, out.signatures(ctx, s.DNS)
}

// keepLeased puts instances under a lease that is kept alive until ctx ends, and the one of
// the signed zone.
func (e *Etcd) keepLeased(ctx context.Context) error {
	lease, err := e.Grant(ctx, 5)
	if err != nil {
		return err
	}
	alive, err := e.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	go func() {
		for range alive { // until ctx ends or the client is closed
		}
	}()
	for i := range 3 {
		if _, err := e.Put(ctx, Instance("leased", fmt.Sprint(i)), fmt.Sprintf("10.0.0.%d:80", 1+i), clientv3.WithLease(lease.ID)); err != nil {
			return err
		}
	}
	_, err = e.Put(ctx, jumpPrefix+"instances/web/a", "10.0.0.9:80")
	return err
}

// serveJumping starts the server.
func (l *Lab) serveJumping(ctx context.Context, etcd, secret string, by time.Duration) (*Server, error) {
	if err := os.WriteFile(l.Path("secret"), []byte(secret), 0o600); err != nil {
		return nil, err
	}
	if _, err := l.CLI(ctx, "keys", "generate", "--zone", jumpZone, "--dir", l.Path("keys")); err != nil {
		return nil, err
	}
	err := l.Configure(Settings{
		Etcd:  etcd,
		Zones: []string{fmt.Sprintf("{name: %s, source: muster, prefix: %s, dnssec: %q}", jumpZone, strings.TrimSuffix(jumpPrefix, "/"), l.Path("keys"))},
		More: fmt.Sprintf("services: [{zone: %s, name: %s, fail: closed, max_answers: %d, checks: [{type: http, path: /}]}]\n", Zone, FleetService, jumpFleet) +
			fmt.Sprintf("keys: [{name: %s, algorithm: hmac-sha256, secret_file: %q}]\n", jumpKey, l.Path("secret")),
	})
	if err != nil {
		return nil, err
	}
	s, err := l.Serve("env", jumpVar+"="+strconv.Itoa(jumpAfter)+":"+strconv.Itoa(int(by/time.Second)))
	if err != nil {
		return nil, err
	}
	if err := s.Ready(ctx); err != nil {
		return nil, err
	}
	return s, s.awaitServing(ctx, jumpFleet+4)
}

// ask asks for what there is from before the jump until long after it.
func (j *Jump) ask(ctx context.Context, s *Server) error {
	const after = 20 * time.Second
	window := jumpAfter*time.Second - s.Age() + after
	type part struct {
		tally *Tally
		load  Load
	}
	errs := make(chan error, 2)
	for _, p := range []part{
		{&j.Checked, Load{Names: []string{FleetService + "." + Zone}, Judge: answers(jumpFleet)}},
		{&j.Leased, Load{Names: []string{"leased." + Zone}, Judge: answers(3)}},
	} {
		p.load.Addr, p.load.Rate, p.load.Window = s.DNS, 200, window
		go func() {
			var err error
			*p.tally, err = p.load.Run(ctx)
			errs <- err
		}()
	}
	return errors.Join(<-errs, <-errs)
}

// answers is right for so many records.
func answers(n int) func(*dns.Msg) error {
	return func(m *dns.Msg) error {
		if m.Rcode != dns.RcodeSuccess || len(m.Answer) != n {
			return fmt.Errorf("%s with %d records", dns.RcodeToString[m.Rcode], len(m.Answer))
		}
		return nil
	}
}

// clockOff is by what the server's clock differs from this one, as it tells who signs with
// the true time (RFC 8945 section 5.2.3).
func clockOff(ctx context.Context, addr, secret string) (time.Duration, error) {
	m := new(dns.Msg).SetQuestion(jumpZone, dns.TypeSOA)
	now := time.Now()
	m.SetTsig(jumpKey, dns.HmacSHA256, 300, now.Unix())
	packed, _, err := dns.TsigGenerate(m, secret, "", false)
	if err != nil {
		return 0, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(queryTimeout)) // fails only once closed
	if _, err := conn.Write(packed); err != nil {
		return 0, err
	}
	buf := make([]byte, dns.MaxMsgSize)
	n, err := conn.Read(buf)
	if err != nil {
		return 0, err
	}
	r := new(dns.Msg)
	if err := r.Unpack(buf[:n]); err != nil {
		return 0, err
	}
	sig := r.IsTsig()
	if sig == nil || r.Rcode != dns.RcodeNotAuth || sig.Error != dns.RcodeBadTime {
		return 0, fmt.Errorf("a question signed with the true time is answered %v, want BADTIME", r)
	}
	at, err := strconv.ParseUint(sig.OtherData, 16, 64)
	return time.Unix(int64(at), 0).Sub(now), err
}

// signatures looks at those of an answer made after the jump.
func (j *Jump) signatures(ctx context.Context, addr string) error {
	m := new(dns.Msg).SetQuestion("web."+jumpZone, dns.TypeA)
	m.SetEdns0(1232, true)
	r, _, err := (&dns.Client{}).ExchangeContext(ctx, m, addr)
	if err != nil {
		return err
	}
	now := time.Now().Add(j.Clock)
	for _, rr := range r.Answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			j.Slack, j.Left = now.Sub(time.Unix(int64(sig.Inception), 0)), time.Unix(int64(sig.Expiration), 0).Sub(now)
			return nil
		}
	}
	return fmt.Errorf("no signature in %v", r)
}
