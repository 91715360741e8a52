// Package h2spec holds what speaks HTTP/2 to clients, the proxy over TCP and over TLS and
// DNS over HTTPS, against h2spec, the conformance test of HTTP/2 (RFC 9113). It tests the
// binary.
package h2spec
