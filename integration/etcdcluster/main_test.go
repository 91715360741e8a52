package etcdcluster_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/musterdns/muster/integration/program"
)

// binary is the muster that is tested. Set before any test runs.
var binary string

func TestMain(m *testing.M) {
	var remove func()
	var err error
	if binary, remove, err = program.Built(); err != nil {
		fmt.Fprintln(os.Stderr, "etcdcluster:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		remove()
		os.Exit(code)
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
