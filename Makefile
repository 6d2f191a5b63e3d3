# Plain make lists the targets. All of them work in .venv, which is made on first use.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
APT := $(if $(filter 0,$(shell id -u)),,sudo -n) env DEBIAN_FRONTEND=noninteractive apt-get
SERVERS := --yes --no-install-recommends postgresql mariadb-server

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(READY)  ## search a small language-model space on this computer
	$(BIN)/archc search examples/studies/demo.yaml

test: $(READY)  ## the tests, without the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY) .venv/.bench  ## every figure of docs/benchmarks.md
	for script in check compile step cost counters memory latency blocks mixture recurrent forms growth lines decode checkpoint study together; do $(BIN)/python -m benchmarks.$$script || exit 1; done

docs: $(READY)  ## the pages that are made from the code
	$(BIN)/python -m docs.build

systems: $(READY)  ## the checks of the zoo's systems, and docs/systems.md
	$(BIN)/python -m pytest tests -n 2 -m system --checks docs/checks.json
	$(BIN)/python -m docs.build

# What cannot be had, for want of a network or of rights, stops nothing: the tests that need it tell that it is absent.
services: $(READY)  ## the tests with servers: PostgreSQL, MariaDB, gRPC, Ray
	-$(MAKE) .venv/.services
	-ls /usr/lib/postgresql/*/bin/postgres /usr/sbin/mariadbd || ($(APT) update && $(APT) install $(SERVERS))
	$(BIN)/python -m pytest -m services -rs

nightly: $(READY)  ## the slow tests
	$(BIN)/python -m pytest -m slow

# torch first, so that nothing else chooses its version
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install -e '.[test]' -c constraints.txt
	$(BIN)/python -m pip install --no-deps timm -c constraints.txt  # its torchvision would bring another torch
	touch $@

.venv/.bench: $(READY)
	$(BIN)/python -m pip install -e '.[bench,counters]' -c constraints.txt
	touch $@

.venv/.services: $(READY)
	$(BIN)/python -m pip install -e '.[postgresql,mysql,grpc,ray]' -c constraints.txt
	touch $@

.PHONY: help demo test check bench docs systems services nightly
