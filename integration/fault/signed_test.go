package fault_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/musterdns/muster/integration/fault"
)

// The first transfer of a signed service zone signs all of it, at once. Questions are
// answered meanwhile as before, none is lost, and it takes bounded memory. Two thousand
// instances here; SIGNED_INSTANCES has more.
func TestTransfer_FirstOfASignedZone(t *testing.T) {
	t.Parallel()
	instances := 2000
	if text := os.Getenv("SIGNED_INSTANCES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("SIGNED_INSTANCES=%s is no number of instances", text)
		}
		instances = n
	}
	l := newLab(t)
	e, err := l.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	const each, prefix = 5, "/signed/v1/"
	err = e.Load(t.Context(), func(yield func(key, value string) bool) {
		for key, value := range fault.Instances(instances/each, each) {
			if !yield(prefix+strings.TrimPrefix(key, fault.Keys), value) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.CLI(t.Context(), "keys", "generate", "--zone", "signed.test", "--dir", l.Path("keys")); err != nil {
		t.Fatal(err)
	}
	s, err := l.Run(t.Context(), fault.Settings{
		Etcd: e.URL, Zones: []string{fmt.Sprintf("{name: signed.test., source: muster, prefix: %s, dnssec: %q}", strings.TrimSuffix(prefix, "/"), l.Path("keys"))},
		More: "access: [{transfer: signed.test., allow: [127.0.0.0/8]}]\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	load := fault.Load{Addr: s.DNS, Rate: 1000, Names: []string{fault.ServiceName(0) + ".signed.test."}, Judge: fault.Answered, Window: 3 * time.Second}
	calm, err := load.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.RSS()
	if err != nil {
		t.Fatal(err)
	}
	type transfer struct {
		records int
		took    time.Duration
		err     error
	}
	done := make(chan transfer, 1)
	go func() {
		began := time.Now()
		n, err := axfr(s.DNS)
		done <- transfer{n, time.Since(began), err}
	}()
	meanwhile, err := load.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := <-done
	after, err := s.RSS()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instances: %d records in %s; p99 of questions %s before, %s meanwhile; RSS %d MiB before, %d MiB after: %d octets a record",
		instances, got.records, got.took, calm.Took.Quantile(0.99), meanwhile.Took.Quantile(0.99), before>>20, after>>20, (after-before)/int64(max(got.records, 1)))
	if got.err != nil || got.records < 10*instances {
		t.Errorf("%d records, %v", got.records, got.err)
	}
	for what, tally := range map[string]*fault.Tally{"before": &calm, "meanwhile": &meanwhile} {
		if tally.Sent == 0 || tally.Share() < 0.99 || len(tally.Wrong) > 0 { // late ones are the machine's
			t.Errorf("%s: of %d questions %d are answered, and wrong were %v", what, tally.Sent, tally.Answered, tally.Wrong)
		}
	}
	if each := (after - before) / int64(max(got.records, 1)); each > 2048 {
		t.Errorf("%d octets of memory for each record that was transferred", each)
	}
}

// axfr counts the records of a transfer.
func axfr(addr string) (records int, err error) {
	tr := &dns.Transfer{ReadTimeout: 2 * time.Minute}
	envelopes, err := tr.In(new(dns.Msg).SetAxfr("signed.test."), addr)
	if err != nil {
		return 0, err
	}
	for e := range envelopes {
		records += len(e.RR)
		if e.Error != nil {
			err = e.Error
		}
	}
	return records, err
}
