# make demo and make test do all the set-up they need, once; make setup does just that part.
# Everything is installed into .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow bench screenshots lint format clean FORCE

help:
	@echo "make demo       everything on a phantom cohort (minutes, two CPU cores); prints where the report is"
	@echo "make test       style, types and tests"
	@echo "make test-slow  the tests that train for longer"
	@echo "make bench      every page of docs/results anew (hours); or one, as make docs/results/3d-lldm.md"
	@echo "make setup      only install into .venv"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "neonet3d needs Python 3.11 or newer; say 'make PYTHON=python3.12'."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[metrics,cluster,app,dev]'
	@touch $@

demo: $(READY)
	$(BIN)/neonet3d demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A process on each of two cores, with one thread: together they take little more than half the time.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test-slow: $(READY)
	$(BIN)/pytest -m slow

# What a bench has trained stays in WORK: interrupted, it goes on. Public data are where NEONET3D_DATA
# says, and nothing else may run beside a bench.
RESULTS := docs/results
WORK ?= runs/bench
bench: $(addprefix $(RESULTS)/,nifti.md tlcr.md phantom.md segmentation.md generator.md 3d-lldm.md \
	classification.md neonet.md app.md)

$(RESULTS)/nifti.md $(RESULTS)/tlcr.md: $(RESULTS)/%.md: FORCE $(READY)
	$(BIN)/python bench/$*_speed.py $@

$(RESULTS)/phantom.md: FORCE $(READY)
	$(BIN)/python bench/phantom_audit.py $@

$(RESULTS)/segmentation.md $(RESULTS)/generator.md $(RESULTS)/classification.md $(RESULTS)/neonet.md: \
		$(RESULTS)/%.md: FORCE $(READY)
	$(BIN)/python bench/$*.py $(WORK)/$* $@

$(RESULTS)/3d-lldm.md: FORCE $(READY)
	$(BIN)/python bench/lldm.py $(WORK)/lldm $@

$(RESULTS)/app.md: FORCE demo
	$(BIN)/python bench/app_speed.py runs/demo $@

FORCE:

# The pictures of docs/app.md, of the app on the study that make demo left.
screenshots: demo
	NEONET3D_APP_RUN=runs/demo NEONET3D_SCREENSHOTS=docs/images $(BIN)/pytest tests/app/test_browser.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
