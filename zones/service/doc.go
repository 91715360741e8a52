// Package service turns the live view of services into wire-ready RRsets: the
// names of a service zone and of reverse zones.
package service
