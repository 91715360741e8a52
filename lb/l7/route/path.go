package route

import (
	"net/url"
	"strings"

	"github.com/musterdns/muster/registry"
)

// foldHost is a host in lower case, without the root's dot.
func foldHost(host string) string {
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// stripPort takes ":8080" off a host.
func stripPort(host string) string {
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || strings.IndexByte(host[colon:], ']') >= 0 {
		return host
	}
	return host[:colon]
}

// meaning is what a path means: escapes undone but for those of slashes, empty
// segments taken out.
func meaning(path string) (string, error) {
	split := path // as those may see it to whom an escaped slash or a backslash is one
	if strings.IndexByte(path, '%') >= 0 {
		kept := strings.NewReplacer("%2f", "%252f", "%2F", "%252F").Replace(path)
		plain, err := url.PathUnescape(kept)
		if err != nil {
			return "", ErrPath
		}
		path = plain
		split = strings.NewReplacer("%2f", "/", "%2F", "/").Replace(path)
	}
	split = strings.ReplaceAll(split, `\`, "/")
	if strings.Contains(split, "/.") && hasDots(split) {
		return "", ErrPath
	}
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path, nil
}

// hasDots reports whether a path has a segment "." or ".."; parameters after a
// semicolon do not hide one (RFC 3986 section 3.3).
func hasDots(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

func unescapeQuery(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	plain, err := url.QueryUnescape(s)
	if err != nil {
		return s
	}
	return plain
}

// Target is the path that a request whose route is r is forwarded with, as it
// is to be sent: path is as it was sent, and only its beginning, which r
// matched, is replaced.
func Target(r *registry.Route, path string) string {
	if !r.StripPrefix && r.Rewrite == "" || path == "*" {
		return path
	}
	rest := afterSegments(path, strings.Count(strings.TrimRight(r.Path, "/"), "/"))
	switch {
	case rest == "":
		if r.Rewrite != "" {
			return r.Rewrite
		}
		return "/"
	case rest[0] != '/':
		rest = "/" + rest
	}
	return strings.TrimRight(r.Rewrite, "/") + rest
}

// afterSegments is a path without its first n segments that are not empty.
func afterSegments(path string, n int) string {
	at := 0
	for range n {
		for at < len(path) && path[at] == '/' {
			at++
		}
		next := strings.IndexByte(path[at:], '/')
		if next < 0 {
			return ""
		}
		at += next
	}
	return path[at:]
}
