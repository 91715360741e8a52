package dnstest

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// Want checks a response: code and flags, then every record of it.
//
// status is a response code, what the response has, and after a semicolon what
// it must not have: "NXDOMAIN qr aa; !tc !ra". Beside the header's flags (qr aa
// tc rd ra ad cd) it knows edns, do and ede=N (an extended error); flags that
// are not named may be either way.
//
// lines are the records, each with its section before it: "answer
// web.svc.internal. 5 IN A 10.0.0.11". Order counts for nothing, blanks stand
// for tabs, and a line whose TTL is * leaves that open. A section without a line
// must be empty; the OPT record is no line.
func Want(t testing.TB, resp *dns.Msg, status string, lines ...string) {
	t.Helper()
	for _, complaint := range check(resp, status, lines) {
		t.Error(complaint)
	}
	if t.Failed() {
		t.Logf("the response:\n%s", resp)
	}
}

// check is Want's list of complaints.
func check(resp *dns.Msg, status string, lines []string) []string {
	has := properties(resp)
	var complaints []string
	words := strings.Fields(strings.ReplaceAll(status, ";", " "))
	if len(words) == 0 {
		return []string{"no response code to check for"}
	}
	if got := code(resp); got != words[0] {
		complaints = append(complaints, "code "+got+", want "+words[0])
	}
	for _, w := range words[1:] {
		name, absent := strings.CutPrefix(w, "!")
		if known := slices.Contains(knownProperties, name) || strings.HasPrefix(name, "ede="); !known {
			complaints = append(complaints, "no such flag: "+name)
		} else if has[name] == absent {
			complaints = append(complaints, "flag "+name+": want "+w)
		}
	}
	want := slices.Clone(lines)
	got := recordLines(resp, want)
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		complaints = append(complaints, "records, -want +got:\n"+diff)
	}
	return complaints
}

// code is the response code by name.
func code(resp *dns.Msg) string {
	if resp.Rcode == dns.RcodeBadVers { // the oracle calls it by TSIG's name for the number
		return "BADVERS"
	}
	return dns.RcodeToString[resp.Rcode]
}

// knownProperties are the words of a status, beside ede=N.
var knownProperties = []string{"qr", "aa", "tc", "rd", "ra", "ad", "cd", "edns", "do", "ede"}

func properties(resp *dns.Msg) map[string]bool {
	has := map[string]bool{
		"qr": resp.Response, "aa": resp.Authoritative, "tc": resp.Truncated, "rd": resp.RecursionDesired,
		"ra": resp.RecursionAvailable, "ad": resp.AuthenticatedData, "cd": resp.CheckingDisabled,
	}
	opt := resp.IsEdns0()
	if opt == nil {
		return has
	}
	has["edns"], has["do"] = true, opt.Do()
	for _, o := range opt.Option {
		if ede, ok := o.(*dns.EDNS0_EDE); ok {
			has["ede"], has["ede="+strconv.Itoa(int(ede.InfoCode))] = true, true
		}
	}
	return has
}

// recordLines are the response's records as Want has them. A record that a
// line of want matches but for the TTL left open there gets that line's form.
func recordLines(resp *dns.Msg, want []string) []string {
	open := make(map[string]bool)
	for _, l := range want {
		if f := strings.Fields(l); len(f) > 2 && f[2] == "*" {
			open[l] = true
		}
	}
	var lines []string
	for _, s := range []struct {
		name string
		rrs  []dns.RR
	}{{"answer", resp.Answer}, {"authority", resp.Ns}, {"additional", resp.Extra}} {
		for _, rr := range s.rrs {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			line := s.name + " " + strings.ReplaceAll(rr.String(), "\t", " ")
			f := strings.SplitN(line, " ", 4)
			if loose := f[0] + " " + f[1] + " * " + f[3]; open[loose] {
				line = loose
			}
			lines = append(lines, line)
		}
	}
	return lines
}
