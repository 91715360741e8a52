package cli_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/musterdns/muster/cmd/internal/cli"
	"github.com/musterdns/muster/dnsserver/dnstest"
)

// TestWatchPush_retryDelay: a client that is sent away closes the connection itself, and
// comes again when the server said, not before (RFC 8490 section 6.6.1).
func TestWatchPush_retryDelay(t *testing.T) {
	cert, _ := dnstest.Certificate(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"dot"}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const delay = 1500 * time.Millisecond // more than the client waits without
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	between := make(chan time.Duration, 1)
	go func() {
		defer cancel()
		first, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer first.Close()
		retry := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 4}, uint32(delay/time.Millisecond))
		told := time.Now()
		if _, err := first.Write(append(append([]byte{0, 20, 0, 0, 6 << 3, 2}, make([]byte, 8)...), retry...)); err != nil {
			t.Error(err)
		}
		_ = first.SetReadDeadline(time.Now().Add(10 * time.Second)) // fails only once closed
		if _, err := io.Copy(io.Discard, first); isTimeout(err) {
			t.Error("the client does not close")
		}
		again, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		between <- time.Since(told)
		again.Close()
	}()
	var out, told bytes.Buffer
	code := cli.Run(ctx, cli.App{}, []string{"watch", "--push", "web.svc.test.", "--server", ln.Addr().String(), "--insecure", "--addr", "http://127.0.0.1:1"}, strings.NewReader(""), &out, &told)
	if code != 0 || !strings.Contains(told.String(), "sends its clients away for 1.5s") {
		t.Errorf("%d, %s", code, told.String())
	}
	select {
	case took := <-between:
		if took < delay {
			t.Errorf("the client came again after %s, told %s", took, delay)
		}
	default:
		t.Error("the client did not come again")
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
