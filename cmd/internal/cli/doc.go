// Package cli is the command tree of muster, a verb a file. Verbs that read or
// change a running server do it over the admin API; those that start one call
// the App that they are handed.
//
// Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 the server is not ready.
// `register ... -- COMMAND` passes on the command's own.
package cli
