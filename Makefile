# Mailraft. `make help` lists the targets.

export PATH := /usr/lib/ccache:$(PATH)
DIR ?= ./mailraft-data

.PHONY: help quickstart test planted bench audit clean prepare build

help:
	@echo "make quickstart   build, then run a whole cluster on this machine, in the foreground"
	@echo "make test         every check and test; what CI runs"
	@echo "make planted      plant faults one at a time, and see the simulator find each"
	@echo "make bench        figures, beside this disk's own"
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

planted: prepare
	cargo test --profile plant -p mailraft-sim --features plant --test planted -- --nocapture

bench: build
	target/release/mailraft-chaos bench

audit:
	@test -n "$(DB)" || { echo "make audit DB=path: name a checkout of the RustSec advisory database"; exit 2; }
	cargo audit --db $(DB) --no-fetch --ignore RUSTSEC-2024-0437 --ignore RUSTSEC-2025-0057

clean:
	cargo clean
