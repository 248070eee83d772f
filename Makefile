# Everything a developer or CI runs. `make` alone says what there is.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Touched after a complete install: a broken one is repeated, a current one costs nothing.
STAMP := $(VENV)/.installed
# Named with its exact version wherever pip runs: a range would fetch gigabytes of another build.
TORCH := torch==2.13.0
PIP := -m pip --disable-pip-version-check

# Most tests wait for processes, so three files are run side by side, on two cores too; in the
# order of tests/conftest.py, the longest first.
TESTS := $(BIN)/python -m pytest -q --numprocesses 3 --dist loadfile --no-loadscope-reorder

# What pip says without what it says of every package: long downloads and faults are left.
PROGRESS := awk '/^ *Downloading / {print "  " $$1, $$2, $$3, $$4; fflush()} \
	/^Installing collected/ {print "  Installing", NF - 3, "packages"; fflush()} \
	!/^WARNING: Location|^[A-Z][a-z]+ |^  +[A-Z][a-z]+ / {print; fflush()}'

.PHONY: help install check lint fast-tests test all-tests chaos format demo bench constraints clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv with everything in it; nothing to do when it is current

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "make: $(PYTHON) is not there. Name a Python 3.11 or newer: make install PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), and Nightscore needs Python 3.11 or newer." \
			"Name another: make install PYTHON=python3.12" >&2; exit 1; }
	@"$(BIN)/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| "$(PYTHON)" -m venv --clear $(VENV)
	@echo "Installing into $(VENV), minutes the first time:"
	@"$(BIN)/python" $(PIP) install --no-compile --progress-bar off --constraint constraints.txt $(TORCH) --editable '.[dev]' 2>&1 | $(PROGRESS)
	@"$(BIN)/python" -m compileall -qq -j 0 $(VENV)/lib alembic examples scoring schedules tasks tests || true  # pip has one core
	@touch $@

check: lint fast-tests ## Linters, types and the fast tests, under two minutes

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fast-tests: $(STAMP)
	@$(TESTS) -m "not slow"

test: lint all-tests ## Everything the project promises, on real services

all-tests: $(STAMP)
	@$(TESTS)

chaos: $(STAMP) ## Cause 500 faults in 100 runs, and count what is lost: half an hour
	@$(BIN)/python -m tests.chaos --runs 100 --faults 500 --minutes 60 --report tests/chaos/results.md

format: $(STAMP) ## Format the code and mend what the linter can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

demo: $(STAMP) ## Train, schedule and score a week of real flights on this machine
	@$(BIN)/python -m examples.flights.demo

bench: $(STAMP) ## Measure rows per second on this machine
	@$(BIN)/python -m benchmarks.throughput

constraints: ## Renew constraints.txt with the newest versions that pyproject.toml allows
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	"$(PYTHON)" -m venv "$$scratch/venv"; \
	"$$scratch/venv/bin/python" $(PIP) install --progress-bar off $(TORCH) '.[dev]' 2>&1 | $(PROGRESS); \
	{ sed '/^[^#]/,$$d' constraints.txt; \
	  "$$scratch/venv/bin/python" $(PIP) freeze --all --exclude nightscore --exclude pip \
	  | sed -E -e 's/^(torch==[0-9.]+)\+.*/\1/' \
	    -e "s/^onnxruntime-gpu(==.*)/onnxruntime\1\nonnxruntime-gpu\1/"; \
	} >"$$scratch/new"; \
	cp "$$scratch/new" constraints.txt; \
	echo "constraints.txt is renewed; make test says whether it is fit to commit"

clean: ## Remove the environment, caches and embedded state
	@rm -rf $(VENV) .scoring dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
