# One entry to everything a developer does; what it installs stays in .venv and .cache.
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
export PYTHON

packages := customerd customerctl customersigner merchantd zkchannels
python := .venv/bin/python
# pytest's own options, for instance: make test PYTEST="-k store -x"
PYTEST ?=

.PHONY: help check test test-all test-fault test-flood test-model test-signer systemd-test test-debian soak demo devnet deb bench clean environment demo-environment static

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: demo-environment ## a whole network on this machine tells its story, then is gone (about a minute)
	@$(python) -m zkchannels.devnet demo

devnet: demo-environment ## the same network, left running to play with; Ctrl-C ends it
	@$(python) -m zkchannels.devnet up

check: static ## the fast part: ruff, mypy --strict, import-linter, unit tests
	@$(python) -m pytest tests/unit $(PYTEST)

test: static ## the fast part and the tests, half of the slow ones (another half each day), in random order
	@ANVIL="$$(tools/anvil)" && export ANVIL && export TEST_SHARE="$${TEST_SHARE:-2}" && $(python) -m tools.test $(PYTEST)

test-all: ## the same with all slow tests
	@TEST_SHARE=1 $(MAKE) test PYTEST="$(PYTEST)"

test-fault: environment ## every crash point and every cut, and the nine failures of the reference system
	@ANVIL="$$(tools/anvil)" && export ANVIL && $(python) -m tests.fault $(PYTEST)

test-flood: environment ## 10,000 half-open connections, and one customer who pays
	@ANVIL="$$(tools/anvil)" && export ANVIL ADVERSARY_FLOOD=10000 && \
	ulimit -n "$$(ulimit -Hn)" && $(python) -m pytest tests/adversary/test_customer_floods.py $(PYTEST)

test-signer: environment ## the signer, its link, tokens and what a thief gets; the gate's table; the signer's figures
	@ANVIL="$$(tools/anvil)" && export ANVIL && \
	$(python) -m pytest tests/signer tests/link tests/tokens tests/thief $(PYTEST) && \
	$(python) -m tools.generate_gate_docs --print && $(python) bench/signer.py

systemd-test: environment ## the units under a real systemd, in a machine booted from this one's files (root; a minute)
	@ANVIL="$$(tools/anvil)" && export ANVIL && $(python) -m pytest tests/systemd $(PYTEST)

test-debian: environment ## the packages, from lintian to purge, on a minimal machine (root; several minutes)
	@ANVIL="$$(tools/anvil)" && export ANVIL && \
	$(python) -m pytest tests/debian $(PYTEST) && $(python) -m pytest tests/debian/whole_packages.py $(PYTEST)

MINUTES ?= 60
soak: environment ## random histories of a whole network for MINUTES; the last line says what was lost
	@ANVIL="$$(tools/anvil)" && export ANVIL && $(python) -m tests.soak --minutes $(MINUTES)

test-model: environment ## the model of the protocol: all rules in force, then each one dropped
	@$(python) -m tests.model

deb: ## the Debian packages, into dist/ (on Debian; as root it installs debhelper when it is missing)
	@tools/build_deb

bench: environment ## the benchmarks, each beside its comparison
	@ANVIL="$$(tools/anvil)" && export ANVIL && missed=0; \
	for file in bench/*.py; do echo "== $$file"; $(python) $$file || missed=1; done; exit $$missed

clean: ## remove everything made here: .venv, .cache and the tools' caches
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find $(packages) tests -name __pycache__ -type d -prune -exec rm -rf {} +

environment:
	@tools/environment development

demo-environment:
	@tools/environment demo

static: environment
	@$(python) -m ruff check .
	@$(python) -m ruff format --check --quiet . || { echo "run: $(python) -m ruff format ." >&2; exit 1; }
	@$(python) -m mypy
	@.venv/bin/lint-imports --no-logo
