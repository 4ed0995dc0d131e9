# Siskin's tasks. Every one installs what it misses (scripts/deps), as root.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GO      ?= go
export CGO_ENABLED = 0

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/siskin, one static binary; needs only Go
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/siskin ./cmd/siskin

.PHONY: generate
generate: ## compile the C in bpf/ and generate its Go types
	@scripts/deps generate
	$(GO) generate ./bpf

.PHONY: lint
lint: ## formatting, vet, staticcheck, and that the generated files are current
	@scripts/deps lint
	@scripts/lint

.PHONY: test
test: test-unit test-root ## all tests

.PHONY: test-unit
test-unit: ## tests that need no root
	$(GO) test -skip '^TestRoot' ./...

.PHONY: test-root
test-root: ## tests on the real kernel: namespaces, programs, daemons; as root
	@scripts/deps test
	@test "$$(id -u)" -eq 0 || { echo "make test-root needs root: it makes network namespaces and loads BPF programs" >&2; exit 1; }
	@# Two packages at a time; ./test, where time matters, has the machine for itself.
	$(GO) test -p 2 -timeout 20m -run '^TestRoot' $$($(GO) list ./... | grep -v '/test$$')
	$(GO) test -timeout 20m -run '^TestRoot' ./test

.PHONY: test-kernels
test-kernels: ## root tests on Linux 6.1 and 6.12, emulated: takes long, needs no root
	@scripts/kernels

.PHONY: fuzz
fuzz: ## feed the programs mutated packets for ten minutes, beside a model; as root
	$(GO) test -run '^TestRootFuzzPackets$$' -timeout 20m ./bpf -v -args -fuzzfor 10m

.PHONY: mutants
mutants: ## put known bugs in, one by one, and see that a test notices; as root, an hour
	@scripts/deps generate
	@scripts/mutants

.PHONY: demo
demo: build ## watch a release that succeeds, and one that comes back by itself
	@scripts/deps demo
	@scripts/demo/run

.PHONY: bench
bench: ## measure packets, and Siskin beside others; as root, takes an hour; BENCH="--quick e2e"
	$(GO) test -run "^$$" -bench Packet -benchtime 100000x -count 5 ./bpf
	@scripts/bench/run $(BENCH)

.PHONY: bench-judge
bench-judge: ## simulate releases: mistakes, power, Kayenta's judge beside; minutes; BENCH="-seed 2"
	$(GO) run ./scripts/bench/judge $(BENCH)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
