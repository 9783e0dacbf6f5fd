# Mailraft. `make help` lists the targets.

export PATH := /usr/lib/ccache:$(PATH)
DIR ?= ./mailraft-data

.PHONY: help quickstart test planted fuzz bench bench-regions bench-folder bench-idle audit clean prepare build package package-test ansible-check ansible-test hardening-test

help:
	@echo "make quickstart   build, then run a whole cluster on this machine, in the foreground"
	@echo "make test         every check and test; what CI runs"
	@echo "make planted      plant faults one at a time, and see the simulator find each"
	@echo "make fuzz         each fuzzer in turn for SECONDS (3600); needs nightly and cargo-fuzz"
	@echo "make bench        figures, beside this disk's own"
	@echo "make bench-regions the same with a backup region 5, 40 and 150 ms away"
	@echo "make bench-folder what commands on a folder of 100,000 messages take"
	@echo "make bench-idle   what 5,000 sessions that idle keep of a node's memory"
	@echo "make package      target/package: a .deb, its bill of materials, SHA256SUMS"
	@echo "make package-test the package in a fresh Debian, and gone again; as root"
	@echo "make ansible-check what shows of the roles without a machine"
	@echo "make ansible-test the plays over SSH against three Debian machines on this one; as root, up to half an hour"
	@echo "make hardening-test all roles against one with a kernel and a data disk of its own, by qemu; as root, after ansible-test, up to an hour"
	@echo "make audit DB=p   known vulnerabilities, from a checkout of the advisory database at p"

prepare:
	@bash .ci/prepare

build: prepare
	@echo "== building (the first time RocksDB's C++ takes about 15 minutes on two cores)"
	@# With all targets, as the tests are built: other features would compile RocksDB once more.
	cargo build --release --workspace --all-targets

quickstart: build
	target/release/mailraft quickstart --dir $(DIR)

test: prepare
	@bash .ci/test

package: build
	node/package/build target/release/mailraft target/package

package-test: build
	node/package/test target/release/mailraft

ansible-check: build
	ansible/tests/check target/release/mailraft

ansible-test: package
	ansible/tests/machines target/package/mailraft_*.deb target/release/mailraft-chaos

hardening-test: package
	ansible/tests/hardening target/package/mailraft_*.deb

planted: prepare
	cargo test --profile plant -p mailraft-sim --features plant --test planted --test queues -- --nocapture

# What a fuzzer collects stays below target; a finding is in chaos-tests/fuzz/artifacts.
SECONDS ?= 3600
FUZZERS ?= $(basename $(notdir $(wildcard chaos-tests/fuzz/fuzz_targets/*.rs)))
fuzz:
	@for name in $(FUZZERS); do \
	  echo "== $$name for $(SECONDS) s" && mkdir -p target/fuzz-corpus/$$name && \
	  cargo +nightly fuzz run --fuzz-dir chaos-tests/fuzz $$name target/fuzz-corpus/$$name chaos-tests/fuzz/corpus/$$name \
	    -- -max_total_time=$(SECONDS) -max_len=65536 -timeout=10 -rss_limit_mb=1024 || exit 1; \
	done

bench: build
	target/release/mailraft-chaos bench

bench-regions: build
	target/release/mailraft-chaos bench --regions --seconds 15 --kills 6

bench-folder: build
	target/release/mailraft-chaos bench --folder 100000

bench-idle: build
	target/release/mailraft-chaos bench --idle 5000

audit:
	@test -n "$(DB)" || { echo "make audit DB=path: name a checkout of the RustSec advisory database"; exit 2; }
	cargo audit --db $(DB) --no-fetch --ignore RUSTSEC-2024-0437 --ignore RUSTSEC-2025-0057

clean:
	cargo clean
