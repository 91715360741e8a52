package etcdcluster_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/integration/program"
)

// binaryVar names the binary that is tested, also to a test that runs in namespaces of
// its own.
const binaryVar = "MUSTER_BIN"

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "etcdcluster-")
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		var binary string
		if binary, err = program.Muster(ctx, dir); err == nil {
			err = os.Setenv(binaryVar, binary)
		}
		cancel()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcdcluster:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
