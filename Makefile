# make demo: a language model's whole life, in minutes.   make test: the fast suite.
# Both make the environment .venv when it is missing; a second run installs nothing.

PYTHON ?= python3
# On Linux the default registry serves torch with CUDA; for the much smaller one without:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
WORKERS ?= 2

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test real-models check bench help-pages clean environment
.DELETE_ON_ERROR:

demo: .venv/.ready-run
	$(BIN)/amauta run demo

test: .venv/.ready-dev
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(WORKERS) tests

# Fetches weights (some 190 MB) and compares with transformers and sentence-transformers; minutes.
real-models: .venv/.ready-dev
	$(BIN)/amauta models add smollm2 --yes
	$(BIN)/amauta models add minilm --yes
	$(BIN)/amauta models add stories15m --yes
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -rs tests/test_real_models.py

check: .venv/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/rules

bench: .venv/.ready-dev
	$(BIN)/python -m benchmarks

help-pages: .venv/.ready-run
	$(BIN)/python -m amauta.cli._help_pages docs/reference

environment: .venv/.ready-dev

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first and by its exact version: left to itself, a resolver may try gigabytes of other builds of it.
.venv/.ready-run: pyproject.toml constraints.txt
	@echo "environment: .venv with $(TORCH) and the libraries of constraints.txt (once, some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "amauta needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "environment: $(TORCH)"
	@$(PIP) install "$(TORCH)" -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@echo "environment: amauta and what it needs"
	@$(PIP) install hatchling editables -c constraints.txt
	@$(PIP) install --no-build-isolation -c constraints.txt -e .
	@touch $@

# kenlm has no wheels and needs a C++ compiler; it is only an oracle of the n-gram tests.
.venv/.ready-dev: .venv/.ready-run
	@echo "environment: tools for tests and checks"
	@$(PIP) install --no-build-isolation -c constraints.txt -e '.[dev]'
	@$(PIP) install -c constraints.txt kenlm || echo "environment: kenlm could not be built; its tests are skipped"
	@touch $@
