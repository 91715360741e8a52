package registry

import "errors"

// ErrExists is returned by Apply when a Create finds its key taken.
var ErrExists = errors.New("the record exists already")

// ErrNotFound is returned when a record asked for is not there.
var ErrNotFound = errors.New("no such record")

// ErrChanged is returned by Apply when a record was changed since the revision
// that the caller read.
var ErrChanged = errors.New("the record was changed by somebody else meanwhile")
