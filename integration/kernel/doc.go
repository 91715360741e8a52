// Package kernel tests the built binary's proxy modes nat and dsr and its virtual
// addresses with real clients and instances, each a machine of its own: a network
// namespace, all on one link.
package kernel
