# make test    all tests (a few minutes)
# make lint    gofumpt, go vet, staticcheck
# make race    all tests under the race detector
# make fuzz    each fuzz target for FUZZTIME
# make bench   benchmarks of every package, beside a run that make bench-save has kept
# make bench-peers   shoal beside rsync, aria2 and curl, where they are installed
# make soak    kills, power cuts, the simulation and the growth tests at full size, and the fault tests as long as they like
# make build   the binary, ./shoal
# make release-check   the packages of a release, built, installed and tried (needs root)
# make cross   builds for every system that is supported, into dist/

GO       ?= go
FUZZTIME ?= 20s
BENCH    ?= .
COUNT    ?= 6
RUNS     ?= 5

.PHONY: all build test race lint fuzz release-check bench bench-save bench-peers soak cross demo clean

all: build lint test

build:
	$(GO) build -trimpath -o shoal ./cmd/shoal

test:
	$(GO) test $(TESTFLAGS) -parallel 6 -timeout 30m ./...

race:
	$(GO) test -race -timeout 30m ./...

lint:
	@out=$$($(GO) tool gofumpt -l .); if [ -n "$$out" ]; then echo "gofumpt: not formatted:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

fuzz:
	.ci/fuzz $(FUZZTIME)

release-check:
	.release/check

bench:
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -timeout 2h ./... | tee bench.out
	$(GO) tool benchstat $$(ls bench.saved 2>/dev/null) bench.out

bench-save:
	cp bench.out bench.saved

bench-peers: build
	$(GO) run ./cmd/bench-peers -runs $(RUNS)

soak:
	SHOAL_SOAK=1 $(GO) test -count 1 -timeout 2h -v -run 'Kill|Soak|C04|C03|Simulate|Growth|N02Chaos|R01HostileMemory|P18Many' ./...

# The tests of other systems are compiled, by vet, for one processor each: it makes
# no difference to them, and takes a minute.
cross:
	@set -e; for os in linux darwin windows freebsd; do \
		ext=; if [ $$os = windows ]; then ext=.exe; fi; \
		for arch in amd64 arm64; do \
			echo "$$os/$$arch"; CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -o dist/shoal-$$os-$$arch$$ext ./cmd/shoal; \
		done; \
		GOOS=$$os GOARCH=arm64 $(GO) vet ./...; \
	done

demo:
	$(GO) run ./cmd/shoal demo

clean:
	rm -rf shoal shoal.exe dist dist-docs bench.out bench.saved
