# Two commands do everything: `make train` and `make test`. Both set up .venv when needed. `make help`
# lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/vit_b_seednorm.yaml

.PHONY: train test gpu lint clean help
.DELETE_ON_ERROR:

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off -e '.[dev]'
	touch $@

train: $(VENV)/.installed  ## the main job, to runs/vit_b_seednorm; continues it if it was interrupted
	$(BIN)/python tools/train.py $(CONFIG) --resume $(ARGS)

test: $(VENV)/.installed lint  ## lint and all tests, as CI runs them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile \
		--no-loadscope-reorder $(ARGS)

gpu: $(VENV)/.installed  ## on a GPU: its tests, norms and training steps, to runs/gpu; ten minutes
	$(BIN)/python tools/benchmark.py gpu $(ARGS)

lint: $(VENV)/.installed  ## style, types and the order of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:  ## remove the virtual environment and caches, never runs/
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile
