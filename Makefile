# The commands of this repository. Each runs on a fresh Debian 12 with Rust, as root or not, and is quick the second time.

MAKEFLAGS += --no-print-directory
# The end-to-end tests wait for other processes most of the time: more of them than cores keep two cores busy.
E2E_THREADS ?= 6
# What the end-to-end tests run on, one after the other, with one and the same binary.
RUNTIMES ?= tokio smol

.PHONY: help demo man test test-unit test-e2e soak soak-clients suites mutants mutation-survivors fuzz bench edge fmt lint

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make demo       the guided tour: PostgreSQL, a development issuer and gprxy, started for you
demo:
	@scripts/install-build-deps
	@cargo run --quiet --locked -p gprxy -- demo

## make man        the manual, one page for each command, into target/man
man:
	@scripts/install-build-deps
	@cargo run --quiet --locked -p gprxy -- man --dir target/man

## make test       everything: unit tests, then the end-to-end tests on real servers and drivers
test: test-unit test-e2e

## make test-unit  the tests without a real server
test-unit:
	@scripts/install-build-deps
	cargo test --locked --workspace

## make test-e2e   PostgreSQL 15 and 18, OIDC providers, Chromium, psql and drivers, on both runtimes; installs them first
test-e2e:
	@scripts/install-build-deps
	@scripts/install-test-deps
	@for runtime in $(RUNTIMES); do \
	  echo "end to end on $$runtime"; \
	  GPRXY_TEST_RUNTIME=$$runtime RUST_TEST_THREADS=$(E2E_THREADS) \
	    cargo test --locked -p gprxy --features smol --test e2e || exit 1; \
	done

## make soak       the laws of the simulated world, over as many seeds as SEEDS says
SEEDS ?= 0..20000
soak:
	@scripts/install-build-deps
	GPRXY_SEEDS=$(SEEDS) cargo test --locked --release -p gprxy-proto --all-features --test laws

## make soak-clients  2,000 clients on 20 server connections for a minute, with faults: CLIENTS, SECONDS_EACH for others
CLIENTS ?= 2000
SECONDS_EACH ?= 60
soak-clients:
	@scripts/install-build-deps
	@scripts/install-test-deps
	GPRXY_SOAK_CLIENTS=$(CLIENTS) GPRXY_SOAK_SECONDS=$(SECONDS_EACH) \
	  cargo test --locked -p gprxy --features smol --test e2e soak:: -- --nocapture

## make suites     the test suites of tokio-postgres, psycopg2 and pg8000: directly, in session mode, in transaction mode
suites:
	@scripts/install-build-deps
	@scripts/install-test-deps
	@scripts/install-suite-deps
	cargo test --locked -p gprxy --test suites -- --nocapture

## make mutants    plants bugs in a copy of the tree and shows which law catches each; takes about a quarter of an hour
mutants:
	@scripts/install-build-deps
	@scripts/mutation-check

## make mutation-survivors  changes every decision of cancel, pools, sessions and audit and lists what no unit test notices;
##                 takes hours, installs cargo-mutants; ONLY=src/pool for some files (a regular expression)
ONLY ?= .
mutation-survivors:
	@scripts/install-build-deps
	@command -v cargo-mutants >/dev/null || cargo install --locked cargo-mutants
	cargo mutants --package gprxy-proto --re '$(ONLY)' --output target

## make fuzz       every fuzz target for SECONDS; needs a nightly toolchain, installs cargo-fuzz
SECONDS ?= 60
fuzz:
	@scripts/install-build-deps
	@scripts/fuzz $(SECONDS)

## make bench      gprxy beside PgBouncer: CPU per transaction and per megabyte, memory per session
bench:
	@scripts/bench

## make edge       the smallest gprxy: on smol, the proxy only; static where Rust's musl target is installed
edge:
	@scripts/install-build-deps
	@ls -l "$$(scripts/build-edge)"

## make fmt        format
fmt:
	cargo fmt --all

## make lint       what CI refuses: format, clippy, features, documentation, dependencies, the layer law, dead references
lint:
	@scripts/install-build-deps
	cargo fmt --all --check
	cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
	cargo clippy --quiet --locked -p gprxy --features smol --test e2e -- -D warnings
	scripts/check-features
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --locked --workspace --no-deps
	scripts/cargo-deny check bans licenses sources
	scripts/check-purity
	scripts/check-docs
	scripts/mutation-check --apply-only
