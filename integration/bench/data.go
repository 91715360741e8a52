package main

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
)

// zoneName is the zone that every server serves.
const zoneName = "svc.example"

// ttl of every record, seconds.
const ttl = 5

// queriesCount is how many queries a generator goes round.
const queriesCount = 50_000

// srvShare is the share of SRV questions in the mixed load.
const srvShare = 0.2

// Query types, RFC 1035 section 3.2.2 and RFC 2782.
const (
	typeA   = 1
	typeSRV = 33
)

// dataset is what is served: services of so many instances each.
type dataset struct {
	services, instances int
}

// service is the name of the i-th service; all are equally long.
func (d dataset) service(i int) string { return fmt.Sprintf("svc%05d", i) }

// instance is the name of the k-th instance.
func (d dataset) instance(k int) string { return fmt.Sprintf("i%d", k) }

// address is the address of an instance, different for each.
func (d dataset) address(i, k int) string {
	n := i*d.instances + k
	return fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255)
}

// instancePort is what every instance listens on.
const instancePort = 8080

// zoneFile is the zone as a master file (RFC 1035 section 5).
func (d dataset) zoneFile() string {
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN %s.\n$TTL %d\n@ SOA ns1 hostmaster 1 3600 600 86400 %d\n@ NS ns1\nns1 A 127.0.0.1\n", zoneName, ttl, ttl)
	for i := range d.services {
		service := d.service(i)
		for k := range d.instances {
			fmt.Fprintf(&b, "%s A %s\n", service, d.address(i, k))
			fmt.Fprintf(&b, "%s.%s A %s\n", d.instance(k), service, d.address(i, k))
			fmt.Fprintf(&b, "_http._tcp.%s SRV 0 1 %d %s.%s\n", service, instancePort, d.instance(k), service)
		}
	}
	return b.String()
}

// records yields the etcd keys and values that make the same zone in Muster.
func (d dataset) records(yield func(key, value string) bool) {
	for i := range d.services {
		for k := range d.instances {
			key := fmt.Sprintf("/muster/v1/instances/%s/%s", d.service(i), d.instance(k))
			value := fmt.Sprintf(`{"address":%q,"port":%d,"ports":{"http":%d}}`, d.address(i, k), instancePort, instancePort)
			if !yield(key, value) {
				return
			}
		}
	}
}

// queries are the generator's input: queries in wire form, each behind its
// length. With mixed, a share of them asks for SRV. They are the same each
// time.
func (d dataset) queries(mixed bool) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for range queriesCount {
		name, typ := d.service(rnd.IntN(d.services))+"."+zoneName, uint16(typeA)
		if mixed && rnd.Float64() < srvShare {
			name, typ = "_http._tcp."+name, typeSRV
		}
		b = append(b, sized(query(name, typ))...)
	}
	return b
}

// sized is a query behind its length, as the generator reads it.
func sized(q []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...) }

// withDO gives each query of a generator's input an OPT record with DO (RFC 3225).
func withDO(input []byte) []byte {
	opt := []byte{0, 0, 41, 1232 >> 8, 1232 & 255, 0, 0, 0x80, 0, 0, 0}
	var b []byte
	for q := range queriesOf(input) {
		q = append(slices.Clone(q[2:]), opt...)
		q[11]++ // ARCOUNT
		b = append(b, sized(q)...)
	}
	return b
}

// queriesOf yields the queries of a generator's input, each behind its length.
func queriesOf(input []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(input) > 0 {
			n := 2 + int(binary.BigEndian.Uint16(input))
			if !yield(input[:n]) {
				return
			}
			input = input[n:]
		}
	}
}

// query is a question in wire form (RFC 1035 section 4.1) with id 0.
func query(name string, typ uint16) []byte {
	b := []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		b = append(b, byte(len(label)))
		b = append(b, label...)
	}
	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, typ)
	return binary.BigEndian.AppendUint16(b, 1) // class IN
}
