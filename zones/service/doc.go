// Package service turns the live view of services into wire-ready RRsets: the
// names of a service zone and of reverse zones.
//
//	web.Z                A, AAAA, SRV: picked instances; TXT: the service's metadata;
//	                     HTTPS, SVCB: picked instances' ports named https (or, SVCB, http)
//	_web._tcp.Z          SRV: the same, by RFC 2782's way of asking
//	_http._tcp.web.Z     SRV: the ports named http
//	web-1.web.Z          A, AAAA, SRV, TXT: that instance, whatever its health
//	v2._tag.web.Z        A, AAAA, SRV: only instances with the tag
//	eu-1a._zone.web.Z    A, AAAA, SRV: only instances of the zone
//	key._hash.web.Z      A, AAAA, SRV: the choice that hashing "key" makes
//	_http._tcp.Z         PTR: instances of any service with a port named http, by
//	                     names as that below; DNS-SD (RFC 6763) browses them
//	web-1@web._http._tcp.Z  SRV, TXT: that port of the instance
//	_services._dns-sd._udp.Z  PTR: the ports that services have (section 9)
//	b._dns-sd._udp.Z     PTR: Z; so do db and lb (section 11)
//	_why.web.Z           TXT: why each instance is in or out
//	Z, ns1.Z             SOA, NS; A, AAAA: ns1 where no name servers are configured
//
// A name that exists is never NXDOMAIN because its instances are ill.
//
// Invariant: names below a service are not stored. Lookup finds the service and
// derives the rest; it and Append take no lock and allocate nothing.
package service
