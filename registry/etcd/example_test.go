package etcd_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"time"

	"github.com/musterdns/muster/registry"
	"github.com/musterdns/muster/registry/etcd"
	"github.com/musterdns/muster/registry/etcd/embedded"
)

// A program registers itself: it is in the answers until the lease is closed,
// or at most ten seconds after the program has died.
func ExampleSource_Register() {
	ctx := context.Background()
	server, err := embedded.Start(ctx, embedded.Config{Listen: "127.0.0.1:0"}) // or an etcd that is there
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	client, err := etcd.New(etcd.Config{Endpoints: []string{server.URL()}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	source, err := client.Source(1, registry.DefaultPrefix)
	if err != nil {
		log.Fatal(err)
	}
	lease, err := source.Register(ctx, registry.Instance{
		Service: "web", ID: "web-1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.11")}, Port: 8080, Weight: 1,
		Checks: []registry.Check{{Type: "http", Path: "/healthz"}},
	}, 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	record, err := source.Get(ctx, registry.Key{Kind: registry.KindInstance, Service: "web", Name: "web-1"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(record.Leased, string(record.Value))
	if err := lease.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: true {"address":"10.0.0.11","port":8080,"checks":[{"type":"http","path":"/healthz"}]}
}
