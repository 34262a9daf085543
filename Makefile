# `make run` and `make test` need Python 3.11 or newer, make and the package registry; nothing else.

# The first of these that really runs and is new enough: a name on PATH may be a version manager's empty shim.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

# Tests and proofs in so many processes at once: twice the cores, because a third of their time is waiting.
WORKERS ?= $(shell expr 2 '*' $$(nproc))
# How long a soak takes.
HOURS ?= 1
# Without compiled files every process that a test starts, and every worker, compiles the whole source again: half of the time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
# What runs by itself: each has its own target and its own budget in minutes.
BESIDES := browsers clients ship

.PHONY: help run demo test browsers clients ship proofs proofs-money proofs-model model soak check format bench lock clean

help:  ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: $(VENV)/run.stamp  ## start everything on this machine: database, node, supervisor (Ctrl-C stops it)
	@exec $(BIN)/atlas run

demo: $(VENV)/run.stamp  ## live through a month of a simulated shop in two minutes, and see whether it all adds up
	@exec $(BIN)/python -m demo

test: $(VENV)/dev.stamp  ## set up and pass every test that this machine can run, on all cores; WORKERS=4, PYTEST="tests/db -k pay"
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(BESIDES:%=--ignore=tests/%) $(PYTEST)

browsers: $(VENV)/dev.stamp  ## see the pages in a real Chromium as people see them (3 minutes)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/browsers

clients: $(VENV)/dev.stamp  ## see that real clients import what is served and pass packets (3 minutes)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/clients

ship: $(VENV)/dev.stamp  ## install, back up, restore and upgrade as an operator does (4 minutes)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/ship

proofs: $(VENV)/dev.stamp  ## break each promise on purpose and see that its test turns red; PROOFS="S-305" for some of them
	$(BIN)/python -m tests.promises.run --at-once $(WORKERS) $(PROOFS)
	$(if $(PROOFS),,$(BIN)/python -m tests.mutants.run --at-once $(WORKERS) --sample)

proofs-money: $(VENV)/dev.stamp  ## put small wrongs into all modules of money, and see that a test finds each; MONEY="db.billing.refunds"
	$(BIN)/python -m tests.mutants.run --at-once $(WORKERS) $(MONEY)

proofs-model: $(VENV)/dev.stamp  ## see that the search of the model finds by itself what it must find (some minutes)
	ATLAS_MODEL_SEQUENCES=500 $(BIN)/python -m tests.mutants.run --at-once $(WORKERS) --list tests/db/model/must_find.txt

model: $(VENV)/dev.stamp  ## run 500 sequences of everything that is done with money against the model (2 minutes)
	ATLAS_MODEL_SEQUENCES=500 $(BIN)/python -m pytest --numprocesses 2 -q tests/db/model

soak: $(VENV)/dev.stamp  ## the same with other sequences for HOURS=1, until one fails; it is kept in .hypothesis
	@ends=$$(( $$(date +%s) + $(HOURS) * 3600 )); while [ $$(date +%s) -lt $$ends ]; do \
		ATLAS_MODEL_SEED=$$(date +%s) ATLAS_MODEL_SEQUENCES=1000 $(BIN)/python -m pytest --numprocesses 2 -q tests/db/model || exit 1; done

check: $(VENV)/dev.stamp  ## format, lint, types, imports, locks, promises, links, rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_locks.py
	$(BIN)/python tools/check_promises.py
	$(BIN)/python tools/check_links.py
	$(BIN)/python tools/check_rules.py

format: $(VENV)/dev.stamp  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev.stamp  ## measure against the targets; BENCH="leases --json FILE" for a part of it, or to keep the figures
	$(BIN)/python -m benchmarks $(BENCH)

lock:  ## resolve pyproject.toml anew into the hashed locks (needs uv)
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --extra embedded --extra build pyproject.toml -o requirements/run.lock
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --extra embedded --extra build --extra clients pyproject.toml -o requirements/clients.lock
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --extra embedded --extra build --extra clients --extra dev pyproject.toml -o requirements/dev.lock

clean:  ## remove the environment and the caches (never the data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "atlas needs Python 3.11 or newer with its venv module; none was found on PATH." \
		"Say where one is: make PYTHON=/path/to/python3.11" >&2; exit 78; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) does not run, or is older than Python 3.11" >&2; exit 78; }
	@echo "making the environment in $(VENV) (the first time this takes about half a minute)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements/run.lock pyproject.toml | $(BIN)/python
	@$(PIP) --require-hashes -r requirements/run.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.lock pyproject.toml | $(BIN)/python
	@$(PIP) --require-hashes -r requirements/dev.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/run.stamp
