package authority_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/musterdns/muster/dnsserver/authority"
)

func TestHandler_Ask(t *testing.T) {
	h := benchHandler(t, 0)
	local, stranger := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.99")
	tests := []struct {
		name, qname, qtype string
		client             netip.Addr
		want               authority.Reply
	}{
		{"an answer", "C3.bench.test", "a", local, authority.Reply{RCode: "NOERROR", Answers: []string{
			"C3.bench.test. 300 IN CNAME www.bench.test.", "www.bench.test. 300 IN A 192.0.2.10", "www.bench.test. 300 IN A 192.0.2.11",
		}}},
		{"a stale one", "stale.live.test.", "A", local, authority.Reply{RCode: "NOERROR", Answers: []string{"stale.live.test. 5 IN A 192.0.2.1"}, Extra: "Stale Answer: stale answer, 42 s old"}},
		{"none", "nope.bench.test.", "A", local, authority.Reply{RCode: "NXDOMAIN"}},
		{"as the client may have it", "_why.web.live.test.", "TXT", stranger, authority.Reply{RCode: "REFUSED", Extra: "Prohibited"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := h.Ask(tt.qname, tt.qtype, tt.client)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, bad := range [][2]string{{"a..b", "A"}, {"www.bench.test.", "NOTATYPE"}, {"www.bench.test.", ""}} {
		if _, err := h.Ask(bad[0], bad[1], local); err == nil {
			t.Errorf("asking %q: no error", bad)
		}
	}
}
