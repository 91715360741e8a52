package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"unicode/utf8"

	"github.com/musterdns/muster/health"
)

// outputMax bounds a Result's Output, in octets: it goes into logs, keys and
// TXT records.
const outputMax = 200

// line makes one line of printable ASCII of at most outputMax octets of s,
// which may hold anything a target has sent.
func line(s string) string {
	const mark = "..."
	b := make([]byte, 0, outputMax+utf8.UTFMax)
	fits := 0 // of b, with room for the mark
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r < ' ' || r >= 0x7f {
			quoted := strconv.QuoteToASCII(s[i : i+size])
			b = append(b, quoted[1:len(quoted)-1]...)
		} else {
			b = append(b, byte(r))
		}
		i += size
		switch {
		case len(b) > outputMax:
			return string(append(b[:fits], mark...))
		case len(b) <= outputMax-len(mark):
			fits = len(b)
		}
	}
	return string(b)
}

// passed and failed make Results: what was asked, and what came of it.
func passed(what, answer string) health.Result {
	return health.Result{OK: true, Output: line(what + ": " + answer), Load: -1}
}

func failed(what, answer string) health.Result {
	return health.Result{Output: line(what + ": " + answer), Load: -1}
}

// broken is the Result of a check that an error ended; awaited is what it was
// waiting for.
func broken(ctx context.Context, t *health.Target, what, awaited string, err error) health.Result {
	r := failed(what, reason(ctx, t, awaited, err))
	r.Refused = errors.Is(err, syscall.ECONNREFUSED)
	return r
}

// reason says in few words why a check failed.
func reason(ctx context.Context, t *health.Target, awaited string, err error) string {
	var errno syscall.Errno
	var guarded *refusedError
	var timeout net.Error
	switch {
	case errors.As(err, &guarded):
		return guarded.Error()
	case errors.Is(context.Cause(ctx), context.Canceled):
		return "cancelled"
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no %s within %v", awaited, t.Timeout)
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}
