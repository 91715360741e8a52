// Package systemd holds a unit for muster serve, and a drop-in that has
// systemd-resolved ask Muster for the service zone. Its tests have
// systemd-analyze check the unit, and do with the built binary what systemd does
// by it; they need Debian's package systemd, but no running one.
package systemd
