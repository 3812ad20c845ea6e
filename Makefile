# Two commands do everything: `make up` and `make test`. Both bring what they need into .venv.
PYTHON ?= python3
WORKERS ?= auto
BIN := .venv/bin

export GOCACHE := $(CURDIR)/.cache/go-build
export GOPROXY := off
export GOTOOLCHAIN := local
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup up test check lint types site oracle bench bench-delivery bench-ingest bench-llm bench-readings clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.setup  ## bring everything into .venv: Python packages, Go, Node.js, npm packages

up: .venv/.up  ## serve the guides and the local metering API until Ctrl-C
	@$(BIN)/meterprint up

test: .venv/.setup  ## run all tests, or some: make test ARGS="-k meter"
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --numprocesses $(WORKERS) --dist worksteal
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report
endif

check: export CI := true
check: lint types test site  ## what CI runs: lint, types, all tests with nothing skipped, the site

lint: .venv/.setup  ## style and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	cd snippets && go vet ./... && test -z "$$($$(go env GOROOT)/bin/gofmt -d . | tee /dev/stderr)"

types: .venv/.setup  ## types, by mypy, pyright and tsc
	$(BIN)/mypy
	$(BIN)/pyright
	cd snippets && npx --no-install tsc --noEmit

site: .venv/.up  ## build the site into site/, in both languages
	$(BIN)/python scripts/build_site.py

oracle: .venv-oracle/.setup  ## compare what meters read with ClickHouse (0.9 GB, 3 minutes); other cases: make oracle SEED=2
	.venv-oracle/bin/python -m pytest tests/oracle

bench: .venv/.setup  ## measure, and show the table that the README shows
	$(BIN)/python benchmarks/run.py

bench-ingest: .venv/.setup  ## compare what the server takes in with SQLite alone, for the README (3 minutes)
	$(BIN)/python benchmarks/ingest.py --json benchmarks/results/ingest.json

bench-readings: .venv-bench/.setup  ## time readings over up to 10,000,000 events, for the README (15 minutes, 5 GB)
	.venv-bench/bin/python benchmarks/readings.py --json benchmarks/results/readings.json --docs docs

bench-llm: .venv-bench/.setup  ## time what metering adds to calls of models, beside another wrapper (3 minutes)
	.venv-bench/bin/python benchmarks/llm.py --json benchmarks/results/llm.json

bench-delivery: .venv-bench/.setup  ## compare the recorder with other clients, for the pages (25 minutes)
	.venv-bench/bin/python benchmarks/delivery.py --json benchmarks/results/delivery.json --docs docs
	.venv-bench/bin/python benchmarks/reliability.py --json benchmarks/results/reliability.json

clean:  ## remove what was built, and .venv
	rm -rf .venv .venv-bench .venv-oracle .cache build site snippets/node_modules

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Meterprint needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": name another, for example make up PYTHON=python3.12")'
	@echo "Creating .venv ..."
	@$(PYTHON) -m venv .venv || { echo "No venv module: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'

.venv/.up: pyproject.toml uv.lock | $(BIN)/uv
	@echo "Installing what reading, the local API and Python snippets need ..."
	@$(BIN)/uv sync --quiet --locked --inexact --no-default-groups --group up
	@touch $@

# The other clients need versions that the site's tools do not take, so they have an environment of their own.
.venv-bench/.setup: pyproject.toml uv.lock | $(BIN)/uv
	@echo "Installing the clients that are compared ..."
	@UV_PROJECT_ENVIRONMENT=.venv-bench $(BIN)/uv sync --quiet --locked --no-default-groups --group bench --python $(BIN)/python
	@touch $@

.venv-oracle/.setup: pyproject.toml uv.lock | $(BIN)/uv
	@echo "Installing ClickHouse (0.9 GB, once) ..."
	@UV_PROJECT_ENVIRONMENT=.venv-oracle $(BIN)/uv sync --quiet --locked --no-default-groups --group oracle --python $(BIN)/python
	@touch $@

.venv/.setup: pyproject.toml uv.lock snippets/package-lock.json snippets/go.mod | $(BIN)/uv
	@echo "Installing Python packages, Go and Node.js (about 0.6 GB with caches, once) ..."
	@$(BIN)/uv sync --quiet --locked
	@echo "Installing the npm packages of the snippets ..."
	@npm ci --silent --no-fund --no-audit --prefix snippets
	@echo "Warming Go's build cache ..."
	@cd snippets && go build ./... && rm -f snippets
	@touch .venv/.up $@
