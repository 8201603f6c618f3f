# `make demo` and `make test` do all set-up themselves; everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-all lint docs clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# The real 8x8 digits: AutoLR next to the fixed rate it starts from, and a page that shows both.
demo: $(READY)
	rm -rf runs/demo
	$(BIN)/autolr train digits --schedule fixed --threads 1 --out runs/demo/fixed
	$(BIN)/autolr train digits --schedule autolr --threads 1 --held-out --out runs/demo/autolr
	$(BIN)/autolr report runs/demo/fixed runs/demo/autolr --out runs/demo/report

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Longer tests too; without the data or a GPU theirs are skipped with a reason.
test-all: $(READY)
	$(BIN)/python -m pytest -m "slow or not slow"

clean:
	rm -rf .venv runs build dist
