# make help lists the targets.
SHELL := /bin/bash
export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
CORPUS ?= $(CARGO_TARGET_DIR)/corpus
BENCH ?= $(CARGO_TARGET_DIR)/bench
VIRT_FSCK := $(CARGO_TARGET_DIR)/release/virt-fsck
# The distribution's own: what apt installs for Python is there.
PYTHON := /usr/bin/python3

.PHONY: all build demo test bench bench-host kill-matrix race corpus corpus-xml corpus-e2fsprogs fuzz fmt lint clean help

all: build

build: ## build target/release/virt-fsck
	tests/install-tools build
	cargo build --release --locked

demo: ## make a damaged sample guest and check, repair and re-check it
	@tests/demo/run

test: ## format, lints and tests
	tests/install-tools build run test bench-vm
	@$(MAKE) --no-print-directory lint
	cargo build --release --locked
	VIRT_FSCK_BINARY=$(VIRT_FSCK) cargo test --locked --no-fail-fast

bench: ## measure against the bare checkers (needs 13 GB of disk and some minutes)
	tests/install-tools build run bench
	cargo build --release --locked
	$(PYTHON) tests/bench/run --virt-fsck $(VIRT_FSCK) --cache $(BENCH)

bench-luks: ## measure decrypting a guest's LUKS2: beside no encryption, the cipher alone, and dm-crypt in the bench machine
	tests/install-tools build run bench bench-vm
	cargo build --release --locked
	$(PYTHON) tests/bench/encrypted --virt-fsck $(VIRT_FSCK) --cache $(BENCH)
	tests/bench-vm/run --timeout 1200 --disk 2G tests/bench-vm/measure-luks $(VIRT_FSCK)

bench-host: ## measure opening and closing a host's storage against the commands typed by hand
	tests/install-tools build run bench-vm
	cargo build --release --locked
	tests/bench-vm/run --timeout 1200 --disk 2G tests/bench-vm/measure $(VIRT_FSCK)

kill-matrix: ## kill it at every moment of three routes, on each engine, and see the host put back (20 minutes)
	tests/install-tools build run bench-vm
	cargo build --release --locked
	tests/bench-vm/run --timeout 3600 --disk 2G --env KILL_STEP=1 tests/bench-vm/suite $(VIRT_FSCK) \
		kill-route-2 kill-route-5 kill-route-7

race: ## start a guest against a check of it at any moment, 200 times on a file and 200 on a block device
	tests/install-tools build run test
	cargo build --release --locked
	VIRT_FSCK_BINARY=$(VIRT_FSCK) RACE_ROUNDS=200 LIBVIRTD_TEST_ONLY=race LIBVIRTD_TEST_LIMIT=3000 \
		cargo test --locked --test libvirtd -- --nocapture

corpus: corpus-xml corpus-e2fsprogs ## run other projects' test data: libvirt's domains, e2fsprogs' damaged images

corpus-xml:
	tests/install-tools build corpus
	tests/corpus/fetch libvirt $(CORPUS)
	$(PYTHON) tests/corpus/xpath_disks.py $(CORPUS)/libvirt >$(CORPUS)/disks.tsv
	VIRT_FSCK_CORPUS=$(CORPUS)/libvirt VIRT_FSCK_CORPUS_TRUTH=$(CORPUS)/disks.tsv \
		cargo test --release --locked --test corpus_xml -- --ignored --nocapture

corpus-e2fsprogs:
	tests/install-tools build run corpus
	cargo build --release --locked
	tests/corpus/fetch e2fsprogs $(CORPUS)
	VIRT_FSCK_BINARY=$(VIRT_FSCK) VIRT_FSCK_CORPUS=$(CORPUS)/e2fsprogs \
		cargo test --locked --test corpus_ext -- --ignored --nocapture

fuzz: ## run every fuzzer: ten million executions or ten minutes each (EXECUTIONS, SECONDS_EACH)
	tests/install-tools build run
	fuzz/run

fmt: ## format the source
	cargo fmt

# A Rust without these two (Debian's own packages) can still run the tests; CI must have them.
lint: ## check format and lints
	@if [[ -n "$$CI" ]] || cargo fmt --version >/dev/null 2>&1; then \
		echo "cargo fmt --check"; cargo fmt --check; \
	else \
		echo "lint: rustfmt is not installed: the format was NOT checked"; \
	fi
	@if [[ -n "$$CI" ]] || cargo clippy --version >/dev/null 2>&1; then \
		echo "cargo clippy --all-targets -- -D warnings"; cargo clippy --locked --all-targets -- -D warnings; \
	else \
		echo "lint: clippy is not installed: the lints were NOT checked"; \
	fi

clean: ## remove everything that was built, measured or fetched
	cargo clean
	rm -rf "$(CORPUS)" "$(BENCH)"

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile
