# `make help` lists the targets. Every target sets up what it needs first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
AUDIT  := .venv-auditor
# protoc finds its mypy plugins on the path.
PROTO  := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python protos/generate.py
PIP    := -m pip --disable-pip-version-check --no-input --quiet

RUST    := connector/core/rust
CRATE   := $(wildcard $(RUST)/Cargo.* $(RUST)/src/*.rs)
SOURCES := $(shell find connector policies -path $(RUST)/target -prune -o \
             -type f -not -name '*.pyc' -not -name '*.so' -print) pyproject.toml README.md

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint type arch proto bench conformance interop fuzz hammer unit e2e
.PHONY: proto-check opa peers tck conformance-10 clean native rust-lint

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready $(AUDIT)/.ready ## make .venv and .venv-auditor from the hash-pinned lists

native: $(VENV)/.packages ## build the native core again, and say which core runs
	$(install_project)

demo: setup ## the whole story in the terminal: two enterprises, one directory, one auditor
	@$(BIN)/python -m deploy.demo

test: lint type arch proto-check opa unit e2e ## everything that must hold before a change lands

lint: $(VENV)/.ready rust-lint ## ruff: rules and format; for the crate, cargo's
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

rust-lint:
	@if ! command -v cargo >/dev/null || ! cargo fetch --quiet --locked --manifest-path $(RUST)/Cargo.toml; then \
	  echo "*** no Rust, or no crates: the native core is NOT CHECKED ***"; \
	else \
	  cargo fmt --check --manifest-path $(RUST)/Cargo.toml && \
	  cargo clippy --quiet --release --locked --manifest-path $(RUST)/Cargo.toml -- -D warnings; \
	fi

type: $(VENV)/.ready ## mypy, strict
	$(BIN)/mypy

arch: $(VENV)/.ready ## import contracts: imports point down
	$(BIN)/lint-imports

proto: $(VENV)/.ready ## regenerate connector/_pb from protos/
	$(PROTO)

proto-check: $(VENV)/.ready
	$(PROTO) --check

# A real OPA server, built once, for the tests that hold both policy engines to the same answers.
opa: $(VENV)/.ready
	@$(BIN)/python -m tests.opa_server || \
	  echo "*** no OPA server: its tests are SKIPPED; install Go to run them ***"

unit: $(VENV)/.ready ## all tests but the end-to-end ones and those with foreign connectors
	$(BIN)/pytest tests --ignore=tests/e2e --ignore=tests/interop --ignore=tests/conformance/dsp -q

e2e: setup tck ## end-to-end tests: real processes, the demo, the auditor's clean environment
	$(BIN)/pytest tests/e2e tests/conformance/dsp -q

bench: $(VENV)/.ready ## measure this machine; the figures go to bench/results/latest.json
	@mkdir -p bench/results
	$(BIN)/pytest bench -q --benchmark-quiet --benchmark-json=bench/results/parts.json
	@$(BIN)/python -m bench.figures bench/results/parts.json
	$(BIN)/python -m bench.system
	$(BIN)/python -m bench.metering
	$(BIN)/python -m bench.catalog

# Log and witness tools of other projects, built once, that read our logs and are read by us.
peers: $(VENV)/.ready
	@$(BIN)/python -m tests.go_peers || \
	  echo "*** no log tools of other projects: their tests are SKIPPED; install Go to run them ***"

# The Dataspace Protocol's public conformance suite, fetched once.
tck: $(VENV)/.ready
	@$(BIN)/python -m tests.conformance.dsp.suite || \
	  echo "*** no DSP TCK: the protocol's conformance is NOT TESTED; see tests/conformance/dsp ***"

conformance: $(VENV)/.ready peers tck ## log and protocol against public suites, vectors and others' tools
	$(BIN)/pytest tests/conformance -q

conformance-10: $(VENV)/.ready tck ## the Dataspace Protocol's suite ten times, a line for each
	CONFORMANCE_ROUNDS=10 $(BIN)/pytest tests/conformance/dsp/test_suite.py -q -k conforms

interop: setup ## with a connector of another make: Eclipse EDC, from its published artifacts
	@$(BIN)/python -m tests.interop.edc.build || \
	  echo "*** no Eclipse EDC: its tests are SKIPPED; install a JDK and Maven to run them ***"
	$(BIN)/pytest tests/interop -q

hammer: $(VENV)/.ready ## kill a meter under full load, 150 times for each core, and look for every record it took
	HAMMER_ROUNDS=150 $(BIN)/pytest tests/fault/test_report_crash.py -q

fuzz: $(VENV)/.ready ## property tests with a large budget
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest tests/property -q

clean: ## remove everything that make made
	rm -rf $(VENV) $(AUDIT) .cache build dist demo-out *.egg-info
	rm -rf $(RUST)/target connector/core/*.so
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .import_linter_cache

# --- environments -----------------------------------------------------------------------------

define make_venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "$(PYTHON) is older than Python 3.11: install a newer one, or say which with"; \
  echo "  make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
@test -x $(1)/bin/pip || { rm -rf $(1) && $(PYTHON) -m venv $(1); } || { rm -rf $(1); \
  echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu,"; \
  echo "  apt-get install python3-venv"; exit 1; }
endef

# From this folder, and the native core with it where there is Rust. Without, it is told.
define install_project
@rm -f connector/core/*.so
@PYTHONWARNINGS=ignore $(BIN)/python $(PIP) install --no-deps --no-build-isolation -e .
@$(BIN)/python -m connector.core
endef

$(VENV)/.packages: requirements/dev.txt requirements/demo.txt
	@echo "setting up $(VENV) (the first run downloads about 250 MB)"
	$(call make_venv,$(VENV))
	@$(BIN)/python $(PIP) install --require-hashes -r requirements/dev.txt
	@$(BIN)/python $(PIP) install --require-hashes --no-deps --no-build-isolation \
	  -r requirements/demo.txt
	@touch $@

$(VENV)/.ready: $(VENV)/.packages pyproject.toml $(CRATE)
	$(install_project)
	@touch $@

# What an auditor has: the wheel, cryptography and PyJWT. Nothing of it comes from this folder.
$(AUDIT)/.ready: requirements/verify.txt $(SOURCES) | $(VENV)/.ready
	@echo "setting up $(AUDIT)"
	$(call make_venv,$(AUDIT))
	@rm -rf build .cache/wheel
	@PYTHONWARNINGS=ignore $(BIN)/python $(PIP) wheel --no-deps --no-build-isolation -w .cache/wheel .
	@rm -rf build
	@$(AUDIT)/bin/python $(PIP) install --require-hashes -r requirements/verify.txt
	@$(AUDIT)/bin/python $(PIP) install --no-deps --no-index --force-reinstall .cache/wheel/*.whl
	@touch $@
