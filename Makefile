# Every target makes .venv and installs what it needs; nothing else has to be set up first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test bench lint format clean

quickstart: .venv/.core
	$(BIN)/python experiments/quickstart.py

# The time goes into compilation, which uses one core: a process per core, a file at a time so that
# its tests share what they compile.
test: lint
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.core
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tsar_jax needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.core: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.dev: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch .venv/.core $@
