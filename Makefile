# Everything runs in .venv, which `make venv` (and every target that needs it) sets up: Python and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow check docs study-gradual clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY)  ## set up .venv

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Instil needs Python 3.11 to 3.13; $(PYTHON) is `$(PYTHON) --version 2>&1`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

demo: $(READY)  ## the whole loop on the embedded model, a few minutes
	$(BIN)/instil demo

test: $(READY)  ## every test but the slow ones, under 10 minutes
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: $(READY)  ## faults, browser, two ranks, notebook, under 40 minutes
	$(BIN)/python -m pytest -m slow --timeout=1800

check: $(READY)  ## lint, format, types, imports between rooms, generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m instil.cli.docs --check

docs: $(READY)  ## write docs/commands.md and docs/schema from the code
	$(BIN)/python -m instil.cli.docs

study-gradual: $(READY)  ## the gradual study in small, under 10 minutes; FULL=1: all of it, hours, with INSTIL_DATA
ifdef FULL
	$(BIN)/python -m studies.gradual --tune
	$(BIN)/python -m studies.gradual
	$(BIN)/python -m studies.gradual_noise
	$(BIN)/python -m studies.gradual_regression
	$(BIN)/python -m studies.gradual --page
else
	$(BIN)/python -m studies.gradual --small
endif

clean:  ## remove what builds and tests left; runs/ and .venv stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find instil tests benchmarks studies -name __pycache__ -type d -prune -exec rm -rf {} +
