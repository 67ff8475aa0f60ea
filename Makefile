# Two commands do everything: `make demo` and `make test`. Each sets itself up in .venv, once.
# While you work, `make quick` runs what your change is likely to break.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
BENCH := .venv-bench/.ready
# More than there are cores: a third of the tests wait for a server's clock most of the time.
WORKERS ?= 4

.PHONY: demo test quick docs lint types unit bench clean

demo: $(READY)  ## an agent is killed again and again, and finishes anyway
	$(BIN)/python -m examples.audit.demo

test: lint types unit  ## the whole suite

quick: $(READY)  ## the tests that your change is likely to break, for less than a minute
	$(BIN)/python -m tests.quick

lint: $(READY)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .

types: $(READY)
	$(BIN)/mypy core backends providers telemetry testing cli examples tests
	$(BIN)/pyright

unit: $(READY)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

docs: $(READY)  ## the site, in site/; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "open site/index.html"

bench: $(BENCH)  ## durably beside a floor written by hand, beside the bare engines, and beside its peers
	@kept=true; for each in __main__ inngest temporal events peers harness foreign; do \
		.venv-bench/bin/python -m tests.benchmarks.$$each || kept=false; \
	done; $$kept

$(READY): GROUPS = --group dev --group docs
$(BENCH): GROUPS = --group dev --group bench
$(READY) $(BENCH): pyproject.toml
	@echo "setting up $(@D) (once; a minute or two)"
	test -d $(@D) || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[all,documents]" $(GROUPS)
	touch $@

clean:
	rm -rf .venv .venv-bench .mypy_cache .pytest_cache .ruff_cache .hypothesis dist site
