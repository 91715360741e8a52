package archtest_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// dependencies lists the packages that pkg's build pulls in, without tests.
func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", modulePath+"/"+pkg)
	cmd.Dir, cmd.Stderr = top, &stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v\n%s", pkg, err, &stderr)
	}
	return strings.Fields(string(out))
}

// graphRow says what must never be in the build of a package.
type graphRow struct {
	pkg   string
	never []string // import paths and what is below them
	why   string
}

var graphs = []graphRow{
	{"registry/etcd", []string{"go.etcd.io/etcd/server/v3", "go.etcd.io/bbolt", modulePath + "/registry/etcd/embedded"}, "it is the public Go client, and must stay small"},
	{"registry", []string{"google.golang.org", "go.etcd.io"}, "every source and consumer imports it"},
	{"lb", []string{"math/rand", "math/rand/v2", "crypto/rand", "net", "log"}, "selection has no randomness and no input or output"},
	{"dnsserver/wire", []string{"math/rand", "math/rand/v2", "crypto/rand", "net/http", "log"}, "parsing and building are functions of bytes"},
	{"zones", []string{"math/rand", "math/rand/v2", "crypto/rand", "net/http", "log"}, "a lookup is a function of the tree and the question"},
}

func TestGraph_LeavesOutWhatIsNeverNeeded(t *testing.T) {
	for _, row := range graphs {
		t.Run(row.pkg, func(t *testing.T) {
			for _, dep := range dependencies(t, row.pkg) {
				for _, never := range row.never {
					if under(dep, never) {
						t.Errorf("the build of %s contains %s: %s", row.pkg, dep, row.why)
					}
				}
			}
		})
	}
}
