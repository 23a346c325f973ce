# Everything runs from .venv, which `make setup` builds; nothing else has to be installed than Python 3.11+, make and git.
# Tools are called as `python -m`, since the scripts in .venv/bin name the folder they were installed in.

PY := .venv/bin/python
# Changes with the folder: a copied checkout must not trust the environment of the one it was copied from.
STAMP := .venv/.setup-$(shell pwd | cksum | cut -d ' ' -f 1)
PYTEST_ARGS ?=
KILLS ?= 2000
SEED ?= 0
SEEDS ?= 5000
FIRST ?= 0

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test check lint format type bench bench-peers laws crash sim clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## Build .venv with everything (through uv; quick the second time)

$(STAMP): pyproject.toml .ci/setup
	@sh .ci/setup >&2
	@rm -f .venv/.setup-*
	@touch $@

demo: setup ## Show it: an order that survives kill -9 (DEMO_ONCE=1 asks nothing)
	@$(PY) -m examples.demo

test: setup ## Run all tests, on two cores (PYTEST_ARGS="-k name" for some, "-n 0" for one at a time)
	@$(PY) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

check: lint type test ## What CI runs, in its order

lint: setup ## Look at format and style, change nothing
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .

format: setup ## Format, and mend what ruff can mend
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

type: setup ## Check the types (mypy --strict)
	@$(PY) -m mypy

laws: setup ## Look for counterexamples of the laws with new random examples
	@HYPOTHESIS_PROFILE=random $(PY) -m pytest -n 2 tests/property $(PYTEST_ARGS)

bench: setup ## Measure; prints one JSON object and nothing else
	@$(PY) -m benchmarks --json

bench-peers: setup ## The same work in DBOS and LangGraph, each in an environment of its own; prints the ratios
	@$(PY) -m benchmarks.peers

crash: setup ## Kill processes at work, thousands of times (KILLS=2000 SEED=0)
	@$(PY) -m tests.crash --kills $(KILLS) --seed $(SEED)

sim: setup ## Simulate the worker's loop with faults of all kinds (SEEDS=5000 FIRST=0)
	@$(PY) -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

clean: ## Remove caches and build results (not .venv)
	@rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .runs build dist
	@find . -name __pycache__ -type d -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +
