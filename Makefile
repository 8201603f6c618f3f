# `make demo` and `make test` do all set-up themselves; everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-distributed test-reproduce lint clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# The real 8x8 digits from a learning rate that is far too small: fixed, and with AutoLR; and a page that shows both.
DIGITS := $(BIN)/autolr train digits --optimizer sgd --lr 0.003 --threads 1
demo: $(READY)
	rm -rf runs/demo
	$(DIGITS) --schedule fixed --out runs/demo/fixed
	$(DIGITS) --schedule autolr --held-out --out runs/demo/autolr
	$(BIN)/autolr report runs/demo/fixed runs/demo/autolr --out runs/demo/report

# A worker a core, of which torch takes all: four at most. A file's tests stay together, for what they share.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Those that start two ranks on this machine.
test-distributed: $(READY)
	$(BIN)/python -m pytest -m distributed

# Every table and figure of the paper, end to end on small data that the test makes.
test-reproduce: $(READY)
	$(BIN)/python -m pytest -m slow tests/test_reproduce_all.py

clean:
	rm -rf .venv runs reproduced build dist
