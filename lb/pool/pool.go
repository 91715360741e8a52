// Package pool joins what is registered with what is healthy: it is the one
// writer of the View that DNS and the proxies answer from.
package pool
