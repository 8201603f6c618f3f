# `make demo` and `make test` do all set-up themselves: the demo in a light environment, tests in one with everything.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
DEMO := .venv-demo/bin
DEMO_READY := .venv-demo/ready
PIP := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test torture test-compiled test-distributed test-frameworks test-trackers test-browser test-reproduce bare docs release-check lint clean

$(DEMO_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-demo
	$(DEMO)/python $(PIP) --editable '.[plot]'
	touch $(DEMO_READY)

$(READY): pyproject.toml lab/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) --editable '.[dev]' --editable './lab[text,baselines,results]'
	touch $(READY)

# Somebody's own script on the real 8x8 digits: a rate set by hand, find_peak, AutoLR; and a picture of it.
demo: $(DEMO_READY)
	$(DEMO)/python examples/digits.py

# The library's tests, under a minute; those of whole runs and processes; the lab's. A worker a core; one that is done
# takes over what another has not begun.
LONG := long and not slow and not gpu and not distributed and not frameworks and not compiled and not torture \
	and not browser and not site
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4
test: $(READY)
	$(PYTEST) --dist worksteal tests
	$(PYTEST) --dist worksteal -m '$(LONG)' tests
	$(PYTEST) --dist loadfile lab/tests

# Kills, faults, damage and long runs by the thousand: 20 minutes on two cores, and a table of what was done.
.venv/torture: $(READY)
	$(BIN)/python $(PIP) --editable '.[torture]'
	touch $@
torture: .venv/torture
	OMP_NUM_THREADS=1 $(PYTEST) --dist worksteal -m torture -o junit_family=xunit1 --junitxml torture.xml tests/torture
	$(BIN)/python scripts/write_faults_page.py torture.xml

# Those that start two ranks on this machine.
test-distributed: $(READY)
	$(BIN)/python -m pytest -m distributed --ignore tests/integrations tests
	$(BIN)/python -m pytest -m 'distributed and not slow' lab/tests/test_ranks.py

# Those that compile models and steps.
test-compiled: $(READY)
	$(BIN)/python -m pytest -m 'compiled and not slow' tests

# Lightning, Transformers, Accelerate, skorch and fastai, in the tests' environment, also on two ranks: all runs of a
# file in one process, which starts its ranks once. fastai asks for torchvision and spacy too, and trains without them.
FASTAI := fastcore fastprogress fastdownload fasttransform 'plum-dispatch<2.10' cloudpickle pandas requests
.venv/frameworks: $(READY)
	$(BIN)/python $(PIP) --editable '.[frameworks]'
	$(BIN)/python $(PIP) $(FASTAI)
	$(BIN)/python $(PIP) --no-deps fastai
	touch $@
test-frameworks: .venv/frameworks
	OMP_NUM_THREADS=1 $(PYTEST) --dist loadfile -m 'frameworks or distributed' --ignore tests/integrations/test_trackers.py \
		tests/integrations

# TensorBoard, MLflow with a server of its own, and Weights & Biases offline.
.venv/trackers: $(READY)
	$(BIN)/python $(PIP) --editable '.[trackers]'
	touch $@
test-trackers: .venv/trackers
	$(BIN)/python -m pytest -m frameworks tests/integrations/test_trackers.py

# The report's page in a real browser: Chromium and its driver from the system, axe-core from a package for another driver.
.venv/browser: $(READY)
	$(BIN)/python $(PIP) --editable '.[browser]'
	$(BIN)/python $(PIP) --no-deps axe-playwright-python
	touch $@
test-browser: .venv/browser
	@command -v chromium > /dev/null && command -v chromedriver > /dev/null && exit 0; command -v apt-get > /dev/null \
	    && apt-get update -qq && apt-get install -qq --yes chromium chromium-driver > /dev/null && exit 0; \
	    echo 'The page is tested in Chromium: install chromium and chromedriver, and run this again.' >&2; exit 1
	$(BIN)/python -m pytest -m browser tests/browser

# Every table and figure of the paper, end to end on small data that the test makes.
test-reproduce: $(READY)
	$(PYTEST) --dist worksteal -m slow lab/tests/test_reproduce_all.py

# The site, into site/: strict (which --quiet would switch off), its notebooks executed, and looked through for anything
# that needs the network.
.venv/docs: $(READY)
	$(BIN)/python $(PIP) --editable '.[docs]'
	touch $@
docs: .venv/docs
	OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest -m site tests/test_site.py

# What has to be so before a tag is set.
release-check: $(READY)
	$(BIN)/python scripts/check_release.py

# The wheel holds the library alone, passes as an index would have it, and it and the README's script need torch and
# numpy alone.
bare: $(READY)
	$(BIN)/python scripts/check_bare.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-demo runs reproduced build dist site
