# `make help` lists the targets. Everything runs from .venv; nothing needs to be activated.

SHELL := /bin/sh
BIN := .venv/bin
PORT ?= 8082
PYTEST_WORKERS ?= 5
PYTEST_ARGS ?=
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# What is installed is remembered by stamps, so that a second run costs nothing.
RUNTIME := .venv/.runtime-installed
DEVELOP := .venv/.develop-installed

.DEFAULT_GOAL := help
.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/pyvenv.cfg:
	@python=$$(scripts/find-python) && "$$python" -m venv .venv

$(RUNTIME): pyproject.toml constraints.txt | .venv/pyvenv.cfg
	@echo "playhead: installing the server into .venv"
	@$(PIP_INSTALL) -e '.[server]'
	@touch $@

$(DEVELOP): pyproject.toml constraints.txt | .venv/pyvenv.cfg
	@echo "playhead: installing the server and the development tools into .venv"
	@$(PIP_INSTALL) -e '.[server,dev]'
	@touch $(RUNTIME) $@

.PHONY: venv
venv: $(DEVELOP) ## make .venv with the server and the development tools

.PHONY: run
run: $(RUNTIME) ## serve on 127.0.0.1:$(PORT) with data in ./var
	@mkdir -p var
	@exec $(BIN)/playhead serve --host 127.0.0.1 --port $(PORT)

.PHONY: test
test: venv chromium postgres redis lint ## everything: lint, types, arrows, tests
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

.PHONY: chromium
chromium: ## find or install the Chromium of the page tests
	@scripts/chromium --install >/dev/null || true # the page tests fail and say so themselves

.PHONY: postgres
postgres: ## find or install the PostgreSQL of the tests
	@scripts/postgres --install >/dev/null || true # the tests that need it fail and say so themselves

.PHONY: redis
redis: ## find or install the Redis of the tests
	@scripts/redis --install >/dev/null || true # the tests that need it fail and say so themselves

.PHONY: test-cluster
test-cluster: venv redis ## Redis Sentinel and Redis Cluster, with failovers
	@$(BIN)/python -m pytest -m cluster -n $(PYTEST_WORKERS) --dist loadfile --timeout 300 $(PYTEST_ARGS)

.PHONY: lint
lint: venv ## ruff, mypy, import-linter
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: fmt
fmt: venv ## format and apply safe fixes
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: bench
bench: venv ## the benchmarks of docs/benchmarks.md
	@$(BIN)/python -m benchmarks

.PHONY: soak
soak: venv ## minutes of load with kills
	@$(BIN)/python -m pytest -m soak --timeout 0 $(PYTEST_ARGS)

.PHONY: chaos
chaos: venv redis ## minutes of faults on many instances and one Redis; writes docs/chaos.md
	@$(BIN)/python -m benchmarks.chaos --seed 1 --minutes 3 --report docs/chaos.md

.PHONY: mutants
mutants: venv ## plant faults one by one; the suite must catch each
	@$(BIN)/python tests/mutants.py

.PHONY: constraints
constraints: ## renew the pins in constraints.txt
	@scripts/pin

.PHONY: clean
clean: ## remove .venv, caches and build results (keeps ./var)
	@rm -rf .venv build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
