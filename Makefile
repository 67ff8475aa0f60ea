# Two commands do everything: `make demo` and `make test`. Each sets itself up in .venv, once.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint types unit bench clean

demo: $(READY)  ## an agent is killed again and again, and finishes anyway
	$(BIN)/durably demo

test: lint types unit  ## the whole suite

lint: $(READY)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .

types: $(READY)
	$(BIN)/mypy core backends providers testing cli tests
	$(BIN)/pyright

unit: $(READY)
	$(BIN)/pytest -n 2

bench: .venv/.bench  ## durably beside a floor written by hand, and on Temporal beside temporalio and pydantic-ai
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.inngest
	$(BIN)/python -m tests.benchmarks.temporal

.venv/.bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	touch $@

$(READY): pyproject.toml
	@echo "setting up .venv (once; a minute or two)"
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[all]" --group dev
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
