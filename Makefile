# Every target makes .venv and installs what it needs; nothing else has to be set up first.
PYTHON ?= python3
BIN := .venv/bin

SMOKE := anml_meta_train tsar_meta_train plasticity_meta_train hebbian_evolve continual_train compose

.PHONY: quickstart test test-oldest bench accelerator lint format clean

quickstart: .venv/.core
	$(BIN)/python experiments/quickstart.py

# The time goes into compilation, which uses one core: a process per core, a file at a time so that
# its tests share what they compile.
test: lint
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

# A smoke training of each family with the oldest requirements that setup.cfg allows.
test-oldest: .venv-oldest/.core
	set -e; runs=$$(mktemp -d); trap 'rm -rf "$$runs"' EXIT; for name in $(SMOKE); do \
	  .venv-oldest/bin/python -m tsar_jax run $$name --preset smoke --out "$$runs/$$name"; \
	done

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.core
	$(BIN)/python -m benchmarks

# ARGS="--minutes 9" ends the call after nine minutes; the next one goes on.
accelerator: .venv/.accelerator
	$(BIN)/python -m benchmarks.accelerator $(ARGS)

clean:
	rm -rf .venv .venv-oldest

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tsar_jax needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv .venv

.venv-oldest/.core: setup.cfg setup.py pyproject.toml tests/oldest_requirements.py
	rm -rf .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) tests/oldest_requirements.py >.venv-oldest/requirements.txt
	.venv-oldest/bin/python -m pip install --quiet --requirement .venv-oldest/requirements.txt --editable .
	touch $@

.venv/.core: .venv/bin/python setup.cfg setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.accelerator: .venv/bin/python setup.cfg setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[environments$$(command -v nvidia-smi >/dev/null && echo ,gpu)]"
	touch .venv/.core $@

.venv/.dev: .venv/bin/python setup.cfg setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch .venv/.core $@
