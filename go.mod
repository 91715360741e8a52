module github.com/musterdns/muster

go 1.26.0

require (
	github.com/cilium/ebpf v0.22.0 // loading the program of direct server return: lb/kernel/dsr
	github.com/fsnotify/fsnotify v1.10.1 // file changes: cmd/internal/app
	github.com/google/go-cmp v0.7.0 // tests
	github.com/google/nftables v0.3.0 // tables of the NAT data plane: lb/kernel/nat
	github.com/mdlayher/netlink v1.11.2 // conntrack: lb/kernel/nat
	github.com/miekg/dns v1.1.73 // master files: zones/zonefile; printing answers: dnsserver/presentation; the oracle of tests
	github.com/prometheus/client_golang v1.25.0 // the exposition: cmd/internal/metrics
	github.com/rogpeppe/go-internal v1.16.0 // scripts of the command line: tests of cmd/internal/cli
	github.com/spf13/cobra v1.10.2 // the command tree: cmd/internal/cli
	github.com/spf13/pflag v1.1.0 // flags: cmd/internal/config, cli
	github.com/spf13/viper v1.21.0 // merging file, environment and flags: cmd/internal/config
	github.com/vishvananda/netlink v1.3.1 // interfaces, addresses, neighbours: lb/kernel
	github.com/vishvananda/netns v0.0.5 // network namespaces of tests: lb/kernel/kerneltest
	go.etcd.io/etcd/api/v3 v3.7.3 // types of the client: registry/etcd
	go.etcd.io/etcd/client/v3 v3.7.3 // the client: registry/etcd
	go.etcd.io/etcd/server/v3 v3.7.3 // the server: registry/etcd/embedded
	go.uber.org/goleak v1.3.0 // tests
	go.uber.org/zap v1.28.0 // etcd's logger: registry/etcd, embedded
	go.yaml.in/yaml/v3 v3.0.6 // nodes with positions: cmd/internal/config
	golang.org/x/net v0.61.0 // reading answers of muster query: cmd/internal/cli; frames of HTTP/2: dnsserver/doh
	golang.org/x/sync v0.24.0 // groups of goroutines: cmd/internal/app
	golang.org/x/sys v0.49.0 // recvmmsg and socket options: dnsserver; epoll and splice: lb/l4
	google.golang.org/grpc v1.85.0 // grpc.health.v1: health/probe; the connections of the etcd client: registry/etcd
	pgregory.net/rapid v1.3.0 // property tests
)

require (
	github.com/chromedp/chromedp v0.23.0 // a browser: tests of integration/console
	github.com/quic-go/quic-go v0.65.0 // DNS over QUIC: dnsserver/doq, and its client in tests
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/chromedp/cdproto v0.159.0 // indirect
	github.com/coreos/go-semver v0.3.1 // indirect
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/go-viper/mapstructure/v2 v2.4.0 // indirect
	github.com/golang-jwt/jwt/v5 v5.3.1 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/gorilla/websocket v1.5.3 // indirect
	github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus v1.1.0 // indirect
	github.com/grpc-ecosystem/go-grpc-middleware/v2 v2.3.3 // indirect
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.29.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/jonboulle/clockwork v0.5.0 // indirect
	github.com/mdlayher/socket v0.6.0 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/pelletier/go-toml/v2 v2.2.4 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/sagikazarmark/locafero v0.11.0 // indirect
	github.com/sirupsen/logrus v1.9.4 // indirect
	github.com/soheilhy/cmux v0.1.5 // indirect
	github.com/sourcegraph/conc v0.3.1-0.20240121214520-5f936abd7ae8 // indirect
	github.com/spf13/afero v1.15.0 // indirect
	github.com/spf13/cast v1.10.0 // indirect
	github.com/subosito/gotenv v1.6.0 // indirect
	github.com/tmc/grpc-websocket-proxy v0.0.0-20220101234140-673ab2c3ae75 // indirect
	github.com/xiang90/probing v0.0.0-20221125231312-a49e3df8f510 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	go.etcd.io/etcd/client/pkg/v3 v3.7.3 // indirect
	go.etcd.io/etcd/pkg/v3 v3.7.3 // indirect
	go.etcd.io/raft/v3 v3.7.0 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc v0.68.0 // indirect
	go.opentelemetry.io/otel v1.45.0 // indirect
	go.opentelemetry.io/otel/exporters/otlp/otlptrace v1.45.0 // indirect
	go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc v1.45.0 // indirect
	go.opentelemetry.io/otel/metric v1.45.0 // indirect
	go.opentelemetry.io/otel/sdk v1.45.0 // indirect
	go.opentelemetry.io/otel/trace v1.45.0 // indirect
	go.opentelemetry.io/proto/otlp v1.11.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.yaml.in/yaml/v2 v2.4.4 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.15.0 // indirect
	golang.org/x/tools v0.52.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
	gopkg.in/natefinch/lumberjack.v2 v2.2.1 // indirect
	k8s.io/utils v0.0.0-20260108192941-914a6e750570 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)
