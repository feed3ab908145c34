# Two commands do everything on a fresh machine with Python 3.11 to 3.13: make demo, make test.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.gristmill-installed
# what pytest gets besides its defaults, say: make test ARGS="-k rules" or ARGS="-m 'not gpu and not nightly'" (slow too)
ARGS ?=

.PHONY: demo test lint types layers check docs bench clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/gristmill demo

test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy curation training pipelines

layers: $(INSTALLED)
	$(BIN)/lint-imports

check: lint types layers test

# the guide as a site, in site/
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/mkdocs build --strict --quiet

# what pytest is to tests: make bench ARGS="--quick", or names: make bench ARGS="minhash loss"
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.run $(ARGS)

# torch first: where a machine offers several builds of the pinned version, the one chosen here is then left alone
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14) and f"Gristmill needs Python 3.11 to 3.13 and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find curation training pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +
