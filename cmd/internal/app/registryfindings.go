package app

import (
	"cmp"
	"strings"

	"github.com/musterdns/muster/cmd/internal/api"
)

// registryFindings says what is wrong with the registry as a whole.
func (s *server) registryFindings(st *api.RegistryStatus) []api.Finding {
	prefix := s.cfg.Load().Registry.ClusterPrefix
	f := api.Finding{Severity: api.SeverityError, Subject: "registry", Mend: cmp.Or(etcdMend(prefix, st.Error), "bring etcd back at "+strings.Join(s.endpoints, ", "))}
	alone := s.alone.Load()
	switch {
	case st.Snapshot:
		f.Problem = "what is served comes from the snapshot file, " + st.Age.String() + " old"
	case st.Stale:
		f.Problem = "the last proof that what is served is up to date is " + st.Age.String() + " old"
	case !st.Connected && s.client != nil && !s.ready.Load():
		f.Problem = "etcd does not answer, and nothing is known of before"
	case !st.Connected && s.client != nil:
		f.Severity, f.Problem = api.SeverityWarning, "etcd does not answer"
	case alone != nil:
		f.Severity, f.Problem = api.SeverityWarning, "this server cannot list itself among the others, and checks alone: "+*alone
		f.Mend = cmp.Or(etcdMend(prefix, *alone), "see that etcd takes what it writes")
	default:
		return nil
	}
	if st.Error != "" {
		f.Problem += ": " + st.Error
	}
	return []api.Finding{f}
}

// etcdMend says what to do about an error of etcd's, or of the way to it; empty where
// it is only away. What the server writes lies below the prefix.
func etcdMend(prefix, text string) string {
	has := func(part string) bool { return strings.Contains(text, part) }
	switch {
	case has("user name is empty"):
		return "etcd asks for a user: set registry.etcd.username and password_file"
	case has("authentication failed, invalid user ID or password"):
		return "give a user and a password that etcd has: registry.etcd.username and password_file"
	case has("permission denied"):
		return "let the user's role read and write, as the prefix of each zone: etcdctl role grant-permission ROLE --prefix=true readwrite " + prefix + "/"
	case has("signed by unknown authority"):
		return "name the file of the CA that signed etcd's certificate: registry.etcd.ca"
	case has("x509: "):
		return "write the endpoints with a name or address that etcd's certificate has, and see that it has not expired"
	case has("remote error: tls: "):
		return "etcd does not take this server's certificate: set registry.etcd.cert and key to one that its CA signed"
	case has("authentication handshake failed: EOF"), has("first record does not look like a TLS handshake"):
		return "what listens there speaks no TLS: write the endpoints with http:// if it is etcd"
	case has("error reading server preface"):
		return "what listens there is no etcd, or speaks TLS: write the endpoints with https:// then"
	}
	return ""
}
