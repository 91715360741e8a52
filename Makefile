# Muster's commands. `make help` lists them. Tools are pinned here and built
# into .bin, which git ignores; they never enter go.mod.

GO             ?= go
BIN            := $(CURDIR)/.bin
MUSTER         := $(BIN)/muster
COREDNS        := $(BIN)/coredns
LINT_VERSION   := v2.15.0
LINT           := $(BIN)/golangci-lint-$(LINT_VERSION)
H2SPEC_VERSION := v2.2.1+incompatible
H2SPEC         := $(BIN)/h2spec-$(H2SPEC_VERSION)
PREFIX         ?= /usr/local
FUZZTIME       ?= 5m
BENCH          ?= dns
TEST_TIMEOUT   ?= 5m
VERSION        := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# What the tests run beside Muster.
NEEDED         := gcc etcd etcdctl dig kdig unbound dnsmasq knotd nsd named dnssec-keygen ldns-verify-zone dnsviz kresd \
                  pdns_recursor zonemaster-cli ip nft curl openssl chromium systemd-analyze
# The packages of the query path: their claims of no allocation are tested
# again without the race detector, which allocates for itself.
QUERY_PATH     := ./dnsserver/... ./zones/... ./lb/...

.DEFAULT_GOAL := help
.PHONY: help run test check bench bench-dns bench-scale history storm build install fmt fuzz packets

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build one static binary, .bin/muster
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $(MUSTER) ./cmd/muster

run: build ## build and start muster dev: etcd, DNS on 127.0.0.1:5300, sample instances
	@exec $(MUSTER) dev

# Black-box tests run one package after the other: they start clusters and measure what
# is lost, and would take each other's cores.
test: build $(COREDNS) $(H2SPEC) ## run all tests with the race detector; needs the Debian packages of .ci/run
	@PATH="$$PATH:/usr/sbin:/sbin"; missing=; for p in $(NEEDED); do command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] || { echo "make test: not found:$$missing; .ci/run installs the Debian packages that have them" >&2; exit 1; }
	CGO_ENABLED=1 $(GO) test -race -timeout $(TEST_TIMEOUT) $$($(GO) list ./... | grep -v /integration/)
	MUSTER_BIN=$(MUSTER) COREDNS_BIN=$(COREDNS) H2SPEC_BIN=$(H2SPEC) CGO_ENABLED=1 $(GO) test -race -p 1 -timeout $(TEST_TIMEOUT) ./integration/...
	$(GO) test -run '(?i)alloc' -timeout $(TEST_TIMEOUT) $(QUERY_PATH)

check: $(LINT) ## check formatting, vet, lint and architecture
	$(LINT) fmt --diff
	$(GO) vet ./...
	$(LINT) run ./...
	$(GO) test ./integration/archtest

fmt: $(LINT) ## format all Go files
	$(LINT) fmt

bench: build $(if $(filter kill,$(firstword $(BENCH))),$(COREDNS)) ## measure against peers in one run and print a table; BENCH=name for another (see integration/bench)
	MUSTER_BIN=$(MUSTER) COREDNS_BIN=$(COREDNS) $(GO) run ./integration/bench $(BENCH)

history: build ## ten minutes of faults in an etcd of three members, every answer held against its history
	HISTORY_SECONDS=600 MUSTER_BIN=$(MUSTER) $(GO) test -count=1 -timeout 20m -v ./integration/etcdcluster

storm: build ## fifty thousand leases expire at once: some five minutes
	STORM_LEASES=50000 MUSTER_BIN=$(MUSTER) $(GO) test -count=1 -timeout 20m -run 'TestLeases_ExpireInAStorm$$' -v ./integration/fault

bench-scale: build ## measure a million instances, puts, checks and their sharing, all of it even when a limit is missed
	@$(GO) build -o $(BIN)/bench ./integration/bench; failed=0; for name in scale put checks share; do \
		echo "== $$name"; MUSTER_BIN=$(MUSTER) $(BIN)/bench $$name || failed=1; \
	done; exit $$failed

bench-dns: build ## measure DNS beside Debian's servers and the echo floor; COREDNS=path adds CoreDNS
	$(if $(filter command environment,$(firstword $(origin COREDNS))),COREDNS=$(COREDNS)) MUSTER_BIN=$(MUSTER) $(GO) run ./integration/bench dns $(ARGS)

# A minute for each input that is to be made smaller, the default, left FuzzLoad two
# thousand inputs in five minutes; without that it has some hundred thousand.
fuzz: ## run every fuzz target for FUZZTIME (5m)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$$file"); do \
			echo "== $$target in $$(dirname "$$file")"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$$(dirname "$$file")" || exit 1; \
		done; \
	done

packets: ## throw 50,000 mutated packets at each transport, three times; memory must not grow
	MUTATED=50000 $(GO) test -count=1 -timeout 20m -run mutatedPackets -v ./dnsserver/authority

install: build ## install the binary into PREFIX/bin (/usr/local)
	install -D -m 0755 $(MUSTER) $(DESTDIR)$(PREFIX)/bin/muster

# Before the tests, as its build takes a minute of both cores when it is the first.
$(COREDNS): integration/coredns/main.go integration/coredns/go.mod
	CGO_ENABLED=0 GOWORK=off $(GO) build -C integration/coredns -o $@ .

$(H2SPEC):
	@mkdir -p $(BIN)
	GOFLAGS=-mod=mod GOBIN=$(BIN)/install $(GO) install github.com/summerwind/h2spec/cmd/h2spec@$(H2SPEC_VERSION)
	@mv $(BIN)/install/h2spec $@ && rmdir $(BIN)/install

$(LINT):
	@mkdir -p $(BIN)
	GOFLAGS= GOBIN=$(BIN)/install $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mv $(BIN)/install/golangci-lint $@ && rmdir $(BIN)/install
