// Package conformance asks a server over UDP and TCP what the RFCs have rules
// for, octet by octet where a client library would not let one, and holds the
// replies to them. Replies are decoded with miekg/dns, never with Muster's own
// wire code.
//
// By default the server is the built muster binary with testdata/wire.test.zone.
// Another server that serves the same zone is asked with
//
//	go test ./integration/conformance -server 127.0.0.1:5301
//
// which is how the tables were held against Knot 3.2 and NSD 4.6. Those give what
// every row wants but for this: Knot drops a query with two questions, where RFC
// 9619 wants FORMERR, and NSD drops over TCP what is a header and nothing else.
//
// Each row of the tables has a name that begins with the rule, what is sent,
// and what must come back in the words of expect_test.go: the response code,
// flags that are set and that are not, counts of records. What holds for every
// reply (its id, its question, no reserved bits, no octet too many for the
// transport, one TTL for an RRset) is checked for every reply.
package conformance
