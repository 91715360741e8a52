//go:build !linux

package l7

import "errors"

// parks says whether idle connections can be parked. Without epoll each keeps
// its goroutine.
const parks = false

func newPark() (*park, error) { return &park{closed: true}, nil }

func duplicate(int) (int, error) { return 0, errors.ErrUnsupported }

func (*park) watch(int) error       { return nil }
func (*park) unwatch(int)           {}
func (*park) wake()                 {}
func (*park) run(func(int, parked)) {}
func (*park) release()              {}
