# `make` lists the targets. Each installs what it needs first.
.POSIX:
.PHONY: help run build test test-all test-examples example test-fastapi test-python test-node test-clients test-long fuzz sim sim-asan sim-replay \
	sim-faults sim-mutants memcheck soak \
	dist test-dist lint msrv mutants bench instructions clean

PORT = 6379
HTTP_PORT = 8000
MINUTES = 1
# Always build here, because redis.conf names this folder.
CARGO = CARGO_TARGET_DIR=target cargo

help:
	@echo 'make run            build, and start Redis with the module in the foreground (PORT=6379)'
	@echo 'make build          build target/release/libratelimit.so, to load into your own server'
	@echo 'make test           all tests, on real servers that they start and stop'
	@echo 'make test-all       the same on six servers, two of them built here, with Python and Node clients, and the FastAPI example'
	@echo 'make test-long      crashes, clock steps, memory and cost limits, and crowds that wait, in their long form, about twenty minutes'
	@echo 'make fuzz           broken arguments, histories and calls, MINUTES=1 for each'
	@echo 'make sim            the module on a simulated server, through everything that a seed can think of, for MINUTES=1; SEED=n repeats'
	@echo 'make sim-asan       the same under AddressSanitizer, which takes five times as long'
	@echo 'make sim-replay     1,000 simulated histories repeated on each server, which must do the same'
	@echo 'make memcheck       commands, loading, and other modules that act in events, under valgrind'
	@echo 'make soak           a server near saturation, checked by the oracle, with rewrites and failovers, for MINUTES=1'
	@echo 'make example        run examples/fastapi: a REST API and its live monitor, with its own Redis (PORT=6379 HTTP_PORT=8000)'
	@echo 'make test-fastapi   its tests, over HTTP and in Chromium'
	@echo 'make test-python    the Python package in clients/python, against real servers'
	@echo 'make test-node      the Node package in clients/node, against real servers'
	@echo 'make test-clients   both packages'
	@echo 'make test-examples  the examples, and the Python, JavaScript and Go snippets of the documents'
	@echo 'make dist           pack the module and the clients into target/dist: tar.gz, Debian package, wheels, npm'
	@echo 'make test-dist      install, use and remove all of them on this machine, and on Debian 11; needs root'
	@echo 'make lint           formatting, clippy, shellcheck, ruff and dependencies; warnings are errors'
	@echo 'make msrv           build with the oldest Rust that Cargo.toml allows'
	@echo 'make mutants        mutation tests of src/limiter, and its coverage; about half an hour'
	@echo 'make sim-faults     plant the faults of tests/simulation/faults, which the simulation must find (ONLY=word, SEED=n)'
	@echo 'make sim-mutants    the same with mutants of src/server and src/commands; hours (ONLY=src/server/key.rs)'
	@echo 'make bench          measure what a decision costs, beside the alternatives (QUICK=1, KEYS=n, ONLY=part; UPDATE=1 writes docs/benchmarks.md)'
	@echo 'make instructions   count the instructions of a decision, which must not grow (UPDATE=1, ONLY=refused)'
	@echo 'make clean          remove what was built'

run:
	@scripts/setup.sh run
	$(CARGO) build --release --locked
	@PORT=$(PORT) scripts/run.sh

build:
	@scripts/setup.sh build
	$(CARGO) build --release --locked

test:
	@scripts/setup.sh test
	$(CARGO) build --release --locked -p redis-ratelimit -p simulation
	SEED=1 SECONDS=20 target/release/simulation
	$(CARGO) test --locked
	@scripts/servers.sh smoke

test-all:
	@scripts/setup.sh test-all
	$(CARGO) build --release --locked -p redis-ratelimit -p simulation
	SEED=1 SECONDS=20 target/release/simulation
	$(CARGO) test --locked --workspace --exclude redis-ratelimit
	@scripts/fastapi.sh test
	@scripts/servers.sh fetch
	@scripts/python.sh
	@scripts/node.sh
	@scripts/servers.sh build
	@scripts/servers.sh all

test-examples:
	@scripts/setup.sh test-examples
	$(CARGO) build --release --locked
	@scripts/peers.sh
	@scripts/examples.sh
	$(CARGO) test --locked --test server -- --ignored bursts:: documents:: examples::

example:
	@scripts/setup.sh example
	$(CARGO) build --release --locked
	@PORT=$(PORT) HTTP_PORT=$(HTTP_PORT) scripts/fastapi.sh run

test-fastapi:
	@scripts/setup.sh test-fastapi
	$(CARGO) build --release --locked
	@scripts/fastapi.sh test

test-python:
	@scripts/setup.sh test-python
	$(CARGO) build --release --locked
	@scripts/python.sh

test-node:
	@scripts/setup.sh test-node
	$(CARGO) build --release --locked
	@scripts/node.sh

test-clients: test-python test-node

dist:
	@scripts/setup.sh dist
	@scripts/portable.sh
	@scripts/dist.sh
	@scripts/wheels.sh

test-dist: dist
	@scripts/setup.sh test-dist
	@scripts/test-dist.sh
	@scripts/test-debian11.sh
	@scripts/test-portable.sh

test-long:
	@scripts/setup.sh test
	$(CARGO) build --release --locked
	ulimit -S -n 4096 || true; RATELIMIT_LONG=1 $(CARGO) test --locked --test server -- --nocapture --test-threads 1 \
		clock_steps:: crash_recovery:: memory_limits:: cost_limits:: waiting::a_failover waiting_crowds::

fuzz:
	@scripts/setup.sh fuzz
	$(CARGO) build --release --locked
	@scripts/fuzz.sh $(MINUTES)

sim:
	@scripts/setup.sh build
	$(CARGO) build --release --locked -p redis-ratelimit -p simulation
	MINUTES=$(MINUTES) target/release/simulation

sim-asan:
	@scripts/setup.sh build
	@MINUTES=$(MINUTES) scripts/sim-asan.sh

sim-replay:
	@scripts/setup.sh test
	$(CARGO) build --release --locked
	@scripts/servers.sh replay

memcheck:
	@scripts/setup.sh memcheck
	$(CARGO) build --release --locked
	$(CARGO) test --locked --test server memcheck:: -- --ignored

soak:
	@scripts/setup.sh soak
	$(CARGO) build --release --locked
	MINUTES=$(MINUTES) $(CARGO) test --locked --test server soak:: -- --ignored --nocapture

lint:
	@scripts/setup.sh lint
	cargo fmt --all --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --features planted-panic -- -D warnings
	cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir target/fuzz -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --locked --workspace --lib --no-deps --document-private-items
	@scripts/deny.sh
	target/tools/shellcheck/bin/shellcheck scripts/*.sh examples/*.sh clients/lua/*.sh packaging/prerm .ci/run
	target/tools/ruff/bin/ruff check --quiet --no-cache
	target/tools/ruff/bin/ruff format --quiet --no-cache --check

msrv:
	@scripts/setup.sh msrv
	@scripts/msrv.sh

mutants:
	@scripts/setup.sh mutants
	@scripts/mutants.sh

sim-faults:
	@scripts/setup.sh build
	$(CARGO) build --release --locked --package simulation
	@scripts/sim-faults.sh faults

sim-mutants:
	@scripts/setup.sh mutants
	$(CARGO) build --release --locked --package simulation
	@scripts/sim-faults.sh mutants

bench:
	@scripts/setup.sh bench
	@scripts/peers.sh $$([ -n "$$QUICK$$KEYS$$ONLY" ] || echo all)
	$(CARGO) build --release --locked
	[ -n "$$QUICK$$KEYS$$ONLY" ] || $(CARGO) bench --locked --bench limiter
	$(CARGO) bench --locked --bench report

instructions:
	@scripts/setup.sh instructions
	@scripts/peers.sh
	$(CARGO) build --release --locked
	$(CARGO) bench --locked --bench instructions

clean:
	$(CARGO) clean
