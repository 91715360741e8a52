package etcd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/etcd"
	"github.com/musterdns/muster/registry/registrytest"
)

// authority signs certificates for 127.0.0.1 and writes them to files.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue signs a certificate, itself when it is the first, and writes NAME.crt
// and NAME.key.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name string, content []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), content, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// TestSource_secured runs a source as the reader of one prefix, against a
// server that asks for client certificates and log-ins.
func TestSource_secured(t *testing.T) {
	ca := newAuthority(t)
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	ca.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: usage})
	ca.issue("muster", &x509.Certificate{ExtKeyUsage: usage})
	ca.write("password", []byte("s3cret\n"))

	network, peer := registrytest.NewProxy(t, ""), "http://"+registrytest.FreeAddr(t)
	cfg := etcd.Config{
		Endpoints: []string{"https://" + network.Addr()}, CAFile: ca.file("ca.crt"), CertFile: ca.file("muster.crt"), KeyFile: ca.file("muster.key"),
		Username: "reader", PasswordFile: ca.file("password"),
	}
	client, err := etcd.New(cfg) // before there is a server to log in to
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	source, err := client.Source(1, prefix)
	if err != nil {
		t.Fatal(err)
	}
	url, _ := startChild(t, t.TempDir(), "127.0.0.1:0", peer, "only="+peer, "only",
		"--cert-file="+ca.file("server.crt"), "--key-file="+ca.file("server.key"), "--trusted-ca-file="+ca.file("ca.crt"), "--client-cert-auth")
	secure(t, ca, url)
	network.Retarget(strings.TrimPrefix(url, "https://"))

	r := registrytest.Record(t, source, 1)
	r.Await("the state", has("a"))
	if _, err := source.Apply(t.Context(), []registry.Op{{Key: registry.Key{Kind: registry.KindInstance, Service: "web", Name: "b"}, Value: []byte("10.0.0.2:80")}}); err == nil {
		t.Error("a reader could write")
	}
	r.Await("a proof of its age by a reader", func(s registrytest.State) bool { return !s.AsOf.IsZero() })
}

// secure writes a record, adds a user who may read the prefix, and asks for
// log-ins from now on.
func secure(t *testing.T, ca *authority, url string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(ca.file("muster.crt"), ca.file("muster.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	root, err := clientv3.New(clientv3.Config{
		Endpoints: []string{url}, Logger: zap.NewNop(), TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx := t.Context()
	end := clientv3.GetPrefixRangeEnd(prefix + "/")
	steps := []func() error{
		func() error { _, err := root.Put(ctx, prefix+"/instances/web/a", "10.0.0.1:80"); return err },
		func() error { _, err := root.UserAdd(ctx, "root", "r00t"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := root.RoleAdd(ctx, "read"); return err },
		func() error {
			_, err := root.RoleGrantPermission(ctx, "read", prefix+"/", end, clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func() error { _, err := root.UserAdd(ctx, "reader", "s3cret"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "reader", "read"); return err },
		func() error { _, err := root.AuthEnable(ctx); return err },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}
