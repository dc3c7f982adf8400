.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

# Made anew whenever the dependencies change.
$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("postbacks needs Python 3.11 or newer; run make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: demo
demo: $(VENV)/ready ## See every kind of postback travel to a real receiver, failures and resends included
	@$(BIN)/postbacks demo

.PHONY: test
test: $(VENV)/ready ## Lint, types and the whole suite; starts its own broker, beat and workers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 3 # most tests wait for processes: three at a time suit two cores

# What draws the plots is nobody else's business.
$(VENV)/bench: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

.PHONY: bench
bench: $(VENV)/bench ## Measure everything beside its peers into docs/benchmarks.md (15 minutes; wants cc, and Kannel if there)
	@$(BIN)/python -m benchmarks --docs docs $(ARGS)

.PHONY: bench-quick
bench-quick: $(VENV)/ready ## The same table from smaller counts (two minutes)
	@$(BIN)/python -m benchmarks --quick $(ARGS)

.PHONY: crash
crash: $(VENV)/ready ## Kill anything at any moment, count every postback afterwards (ten minutes; ARGS="--seed 7")
	@$(BIN)/python -m crash $(ARGS)

.PHONY: clean
clean: ## Remove the environment and caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
