# Everything a person does with this tree. Each target installs what is missing (packaging/setup.sh)
# and needs root, because the labs build networks; all of them in namespaces of their own.

SHELL := /bin/bash
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/sbin:/sbin
CARGO := cargo
STAGE := .ci/stage

.PHONY: help setup build guest test test-unit test-netns test-vm fuzz differential soak demo bench lint docs wasm release-check deb clean-lab

help: ## say what there is (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing from Debian's packages, and Rust
	@packaging/setup.sh

build: setup ## build everything, tests included
	$(CARGO) build --locked --workspace --all-targets

guest: setup ## build the VM lab's guest (kernel and initramfs), once
	@tests/lab/build-guest

test: test-unit test-netns test-vm ## all tests, the network lab and the VM lab included

test-unit: build ## unit tests, policy, simulation, captures
	$(STAGE) 'unit, simulation, captures' 8 .ci/tests unit

test-netns: build ## the network lab: real bridge, real clients, guests in namespaces
	$(STAGE) 'network lab' 12 .ci/tests netns

test-vm: build guest ## the VM lab: real QEMU guests under a libvirt of its own
	$(STAGE) 'VM lab' 9 .ci/tests vm

differential: build ## awake and asleep compared, frame by frame; the table in target/differential/
	.ci/tests differential

fuzz: setup ## any bytes into each parser and the engine, 60 s each; TARGET=name for one
	@fuzz/run $(TARGET)

demo: setup ## watch a guest sleep and wake; VM=1 for a real virtual machine
	@$(CARGO) build --locked -p surrogate -p surrogate-house
	$(if $(VM),@tests/lab/build-guest)
	@trap 'target/debug/lab clean' EXIT; target/debug/lab demo $(if $(VM),--vm)

soak: setup guest ## TCP connections to fifty sleepers, then to a saved VM, ten minutes each; SOAK_SECONDS for another time
	$(CARGO) build --locked --workspace --bins
	SOAK_SECONDS=$(or $(SOAK_SECONDS),600) $(CARGO) test --locked -p surrogate-house \
		--test netns_soak --test vm_custody outlast_ -- --nocapture --skip pause

bench: setup ## measure path, engine, wake and observed guests with a release daemon; about nine minutes once built
	$(CARGO) build --locked --release -p surrogate
	$(CARGO) bench --locked -p surrogate-house --bench path --bench engine --bench wake --bench observe

lint: setup ## rustfmt and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

docs: setup ## rustdoc, without warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

wasm: setup ## the proof that the engine has no I/O: it builds for wasm32
	@$(STAGE) 'wasm32 purity' 4 .ci/purity

release-check: lint docs wasm ## all that must hold before a release, tests aside
	@$(STAGE) 'cargo-deny' 1 .ci/deny

deb: setup ## the Debian package (needs cargo-deb)
	$(CARGO) deb --locked -p surrogate

clean-lab: ## remove what a killed test or demo left behind
	@$(CARGO) run --locked --quiet -p surrogate-house --bin lab clean
