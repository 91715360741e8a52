package app

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/musterdns/muster/cmd/internal/api"
	"github.com/musterdns/muster/cmd/internal/config"
)

// registryFindings says what is wrong with the registry as a whole.
func (s *server) registryFindings(st *api.RegistryStatus) []api.Finding {
	f := api.Finding{Severity: api.SeverityError, Subject: "registry", Mend: s.etcdMend(&s.cfg.Load().Registry, st.Error)}
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
		f.Mend = s.aloneMend(*alone)
	default:
		return nil
	}
	if st.Error != "" {
		f.Problem += ": " + st.Error
	}
	return []api.Finding{f}
}

// aloneMend says what to do where this server cannot list itself among the others.
func (s *server) aloneMend(text string) string {
	return cmp.Or(refusalMend(&s.cfg.Load().Registry, text), "see that etcd takes what it writes")
}

// etcdMend says what to do about an error of etcd's, or of the way to it.
func (s *server) etcdMend(reg *config.Registry, text string) string {
	return cmp.Or(refusalMend(reg, text), "bring etcd back at "+strings.Join(s.endpoints, ", "))
}

// refusalMend is etcdMend where etcd or what stands there does not take this server as it
// is; empty where it is only away.
func refusalMend(reg *config.Registry, text string) string {
	has := func(part string) bool { return strings.Contains(text, part) }
	switch {
	case has("user name is empty"):
		return "etcd asks for a user: set registry.etcd.username and password_file"
	case has("authentication failed, invalid user ID or password"):
		return "give a user and a password that etcd has: registry.etcd.username and password_file"
	case has("permission denied"):
		who := "the user's role"
		if reg.Etcd.Cert != "" && reg.Etcd.Username == "" {
			who = "the role of the user that the certificate's common name is"
		}
		return "let " + who + " read and write, as the prefix of each zone: etcdctl role grant-permission ROLE --prefix=true readwrite " + reg.ClusterPrefix + "/"
	case has("signed by unknown authority"):
		return "name the file of the CA that signed etcd's certificate: registry.etcd.ca"
	case has("has expired or is not yet valid"):
		return "renew etcd's certificate, or set this machine's clock"
	case has("x509: "):
		return "write the endpoints with a name or address that etcd's certificate has"
	case has("remote error: tls: "):
		return certificateMend(reg.Etcd.Cert)
	case has("authentication handshake failed: EOF"), has("first record does not look like a TLS handshake"):
		return "what listens there speaks no TLS: write the endpoints with http:// if it is etcd"
	case has("error reading server preface"), has("broken pipe"), has("connection reset by peer"):
		if strings.HasPrefix(reg.Etcd.Endpoints[0], "https:") {
			return "what listens there is no etcd, or " + certificateMend(reg.Etcd.Cert)
		}
		return "what listens there is no etcd, or speaks TLS: write the endpoints with https:// then"
	}
	return ""
}

// certificateMend says why etcd may have refused this server in the TLS handshake,
// whose alerts are mostly "bad certificate", whatever is wrong. The file is empty
// where no certificate is configured.
func certificateMend(file string) string {
	if file == "" {
		return "etcd asks for a certificate: set registry.etcd.cert and key to one that its CA signed"
	}
	if text, err := os.ReadFile(file); err == nil {
		if block, _ := pem.Decode(text); block != nil {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil && time.Now().After(cert.NotAfter) {
				return fmt.Sprintf("etcd does not take the certificate of registry.etcd.cert, %s, which expired on %s: renew it; it is read again by itself",
					file, cert.NotAfter.UTC().Format(time.RFC3339))
			}
		}
	}
	return "etcd does not take the certificate of registry.etcd.cert, " + file + ": name one, for clients, that a CA of its --trusted-ca-file signed"
}
