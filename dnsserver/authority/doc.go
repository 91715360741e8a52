// Package authority answers queries from a tree of zones.
package authority
