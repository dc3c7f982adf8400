.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

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
test: $(VENV)/ready ## Check lint and types, run the whole suite; it starts its own broker, beat and workers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# The first to collect the tests compiles them all: that takes as long as mypy, and the others find it done.
	@$(BIN)/python -m pytest --collect-only -q >/dev/null 2>&1 & $(BIN)/mypy; checked=$$?; wait; exit $$checked
	# Most tests wait for processes: four at a time suit two cores, and a process that is done takes over from the others.
	$(BIN)/python -m pytest -n 4 --dist worksteal

.PHONY: test-long
test-long: $(VENV)/ready ## Run what the suite leaves out: whole stacks once more, with the other pool, form of logs or load (five minutes)
	$(BIN)/python -m pytest -n 2 -m long

# Only the benchmarks draw plots.
$(VENV)/bench: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

.PHONY: bench
bench: $(VENV)/bench ## Measure everything beside its peers into docs/benchmarks.md (25 minutes; wants cc; Kannel and jemalloc if there)
	@$(BIN)/python -m benchmarks --docs docs $(ARGS)

.PHONY: bench-quick
bench-quick: $(VENV)/ready ## Measure the same from smaller counts (four minutes)
	@$(BIN)/python -m benchmarks --quick $(ARGS)

.PHONY: flower-picture
flower-picture: $(VENV)/ready ## Draw docs/flower.png anew: Flower's task list in headless Chromium (apt-get install chromium)
	@$(BIN)/python benchmarks/flower_picture.py docs/flower.png

.PHONY: demo-picture
demo-picture: $(VENV)/ready ## Draw docs/demo.svg anew: the demo's table, as the README shows it (half a minute)
	@$(BIN)/python benchmarks/demo_picture.py docs/demo.svg

.PHONY: screens
screens: $(VENV)/ready ## Take the screens of the docs anew, from commands typed on a small stack (a minute)
	@$(BIN)/python benchmarks/screens.py

.PHONY: afternoon
afternoon: $(VENV)/ready ## Light the stage of the dashboard's pictures, and print where it is (two minutes; ARGS="--port 8990")
	@$(BIN)/python -m benchmarks.afternoon $(ARGS)

.PHONY: screenshots
screenshots: $(VENV)/ready ## Take docs/dashboard/*.png anew from a staged afternoon, in headless Chromium (six minutes)
	@$(BIN)/python -m benchmarks.afternoon --pictures docs/dashboard $(ARGS)

.PHONY: capacity
capacity: $(VENV)/ready ## Measure the bytes of a postback, and write docs/capacity.md (ten minutes; wants cc)
	@$(BIN)/python -m benchmarks.capacity

.PHONY: crash
crash: $(VENV)/ready ## Kill anything at any moment, count every postback afterwards (fifteen minutes; ARGS="--seed 7", SENTINEL_ARGS)
	@$(BIN)/python -m crash $(ARGS); columns=$$?; echo; \
	$(BIN)/python -m crash.sentinel $(SENTINEL_ARGS); sentinels=$$?; exit $$((columns | sentinels))

.PHONY: crossing
crossing: $(VENV)/ready ## Let a receiver's end of a connection cross our requests, 200 times each way (two minutes; wants root)
	@CROSSING_ROUNDS=$${CROSSING_ROUNDS:-20} $(BIN)/python -m pytest tests/crossing -q -rP | grep -E '^crossing|passed|failed'

.PHONY: web-test
web-test: $(VENV)/ready ## Go all ways through the dashboard in headless Chromium (apt-get installs it where it is missing; five minutes)
	@tests/browser/run.sh $(ARGS)

.PHONY: alerts
alerts: $(VENV)/ready ## Check the alerts for Prometheus and try each out (promtool; fetched by apt-get where it is missing)
	@deploy/prometheus/check.sh

.PHONY: receivers
receivers: $(VENV)/ready ## Run the receivers that customers copy, in five languages (apt-get installs what is missing; two minutes)
	@examples/receivers/check.sh

.PHONY: clock
clock: $(VENV)/ready ## Let a broker's clock jump an hour under load (needs libfaketime: apt-get install faketime)
	@$(BIN)/python -m crash.clock

.PHONY: variables
variables: $(VENV)/ready ## List what Celery reads from the environment, to compare with tests/environment/variables.txt
	@$(BIN)/python tests/environment/variables.py

EXAMPLES := django fastapi flask

# An environment of its own for each, as its reader makes one: this checkout, and what its requirements.txt names.
.examples/%/ready: examples/%/requirements.txt pyproject.toml
	$(PYTHON) -m venv .examples/$*
	.examples/$*/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[local]' -r $<
	@touch $@

.PHONY: examples
examples: $(EXAMPLES:%=.examples/%/ready) ## Run the tests of the Django, FastAPI and Flask examples, each in an environment of its own
	@for example in $(EXAMPLES); do \
		echo "examples/$$example"; (cd examples/$$example && ../../.examples/$$example/bin/python -m pytest -q) || exit 1; \
	done

# The commit's time stands in the archives, so that they are the same bytes wherever they are built.
.PHONY: dist
dist: $(VENV)/ready ## Build wheel and sdist into dist/ and check them, the same bytes wherever this commit is built
	@test -z "$$(git status --porcelain)" || { echo "There are changes that are not committed (git status): commit them first."; exit 1; }
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	@cd dist && sha256sum *

.PHONY: dist-test
dist-test: $(VENV)/ready ## Install the wheel in an empty environment of each Python here and run demo and dashboard there
	$(BIN)/python -m pytest -n 2 -m 'long or not long' tests/house/test_distribution.py

.PHONY: clean
clean: ## Remove the environment and caches
	rm -rf $(VENV) .examples build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
