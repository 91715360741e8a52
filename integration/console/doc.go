// Package console tests the operator's console of the built binary with a real browser,
// Debian's chromium.
package console
