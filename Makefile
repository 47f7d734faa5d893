# From a checkout to a trained network, on a machine that has python3 and make.

PYTHON ?= python3
# uv where there is one, pip otherwise; `make UV=` takes pip in any case.
ifeq ($(origin UV),undefined)
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)
endif
# Further arguments of `make train`, `diagnose`, `figures`, `notebooks`, `benchmark`,
# `test`, `test-all` and `typed`.
ARGS =

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv tfds docs train diagnose figures notebooks benchmark test test-all typed \
	lint format lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile
	@echo 'ARGS="..." is passed on, as in: make train ARGS="--config.num_epochs=5"'

venv: $(STAMP)  ## Install the locked dependencies and the package into .venv

tfds: $(STAMP)  ## Add TensorFlow and TFDS to .venv, for launch/prepare_data.py
ifneq ($(UV),)
	$(UV) pip install --python $(BIN)/python -e '.[tfds]'
else
	$(BIN)/python -m pip install --quiet -e '.[tfds]'
endif

docs: $(STAMP)  ## Build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# A run that has finished is left as it is: ARGS=--overwrite trains it anew.
train: $(STAMP)  ## Train on handwritten digits (no download); writes to runs/digits
	$(BIN)/python launch/train.py --config=configs/digits_mlp.py --workdir=runs/digits $(ARGS)

diagnose: $(STAMP)  ## Say what biases the gradient of that run
	$(BIN)/python launch/diagnose.py --workdir=runs/digits $(ARGS)

figures: $(STAMP)  ## Measure and draw the figures of the analysis, in a few minutes
	$(BIN)/python launch/figures.py $(ARGS)

notebooks: $(STAMP)  ## Make the .ipynb from their .py, and run them
	$(BIN)/python launch/notebooks.py $(ARGS)

benchmark: $(STAMP)  ## Time every method beside backprop and published schedules
	$(BIN)/python launch/benchmark.py $(ARGS)

test: $(STAMP)  ## Run the quick tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not whole" $(ARGS)

test-all: $(STAMP)  ## Run all tests: also whole runs, programs, devices, every pair
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

typed: $(STAMP)  ## Run some of them with checks of every annotated array
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m typed \
	  --jaxtyping-packages=eqprop_jax,beartype.beartype $(ARGS)

lint: $(STAMP)  ## Check style, layout and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ty check --python $(VENV)

format: $(STAMP)  ## Repair style and layout where it can be done by machine
	$(BIN)/python -m ruff check --fix --exit-zero .
	$(BIN)/python -m ruff format .

lock:  ## Write requirements.lock anew from pyproject.toml (needs uv)
	@uv --version >/dev/null 2>&1 || { echo 'make lock needs uv.' >&2; exit 1; }
	uv export --quiet --upgrade --format requirements-txt --no-header --no-annotate \
	  --no-emit-project --extra dev --extra docs --extra notebook \
	  --output-file requirements.lock.new
	@if grep -nE '://|^-[^-]|^--| @ ' requirements.lock.new; then \
	  echo 'The lock must hold no addresses; requirements.lock is unchanged.' >&2; \
	  rm -f requirements.lock.new; exit 1; fi
	mv requirements.lock.new requirements.lock

clean:  ## Remove .venv, caches and builds; runs/ stays
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache build dist site *.egg-info
	find eqprop_jax experiments tests launch configs -name __pycache__ -prune -exec rm -rf {} +

# .venv/.installing lies there from the first step to the last: an environment that still has
# it was interrupted and is made anew. Any other is brought up to date in place, so that
# packages added by hand survive.
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) $(NEW_ENOUGH) || { \
	  echo 'Python 3.11 or newer is needed, and "$(PYTHON)" is not that.' >&2; \
	  echo 'Name another one, as in: make venv PYTHON=python3.12' >&2; exit 1; }
ifneq ($(UV),)
	@if [ -e $(VENV)/.installing ] || ! $(BIN)/python $(NEW_ENOUGH) 2>/dev/null; then \
	  rm -rf $(VENV) && \
	  $(UV) venv --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); fi
	@rm -f $@ && touch $(VENV)/.installing
	$(UV) pip install --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps -e .
else
	@if [ -e $(VENV)/.installing ] || ! $(BIN)/python $(NEW_ENOUGH) 2>/dev/null || \
	  ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); fi
	@rm -f $@ && touch $(VENV)/.installing
	@echo 'Installing into $(VENV); this can take some minutes.'
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
endif
	@touch $@ && rm $(VENV)/.installing
