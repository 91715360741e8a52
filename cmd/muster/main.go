// Command muster answers DNS for services that are registered in etcd and
// healthy.
package main

import (
	"os"

	"github.com/musterdns/muster/cmd/internal/cli"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "devel"

func main() {
	os.Exit(cli.Main(cli.App{Version: version, Serve: serve}))
}
