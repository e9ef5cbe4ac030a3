# `make demo` and `make test` work on a fresh clone that has nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A process a core, each file of tests in one of them.
PARALLEL := --numprocesses auto --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-oldest test-wheel lint format clean

help:            ## list the targets
	@grep -E '^[a-z-]+: .*## |^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# The stamp makes a second `make` start at once; editing pyproject.toml installs again.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.11 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH) --editable '.[dev]'
	touch $@

setup: $(VENV)/.installed  ## create .venv and install

demo: setup      ## pretrain on real digits, probe, fine-tune, write demo/report.html
	$(BIN)/mae demo

test: setup      ## lint, types and the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

test-slow: setup ## the tests that start processes, or take seconds each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m 'slow and not gpu'

test-oldest:     ## the fast tests on the oldest torch that is supported
	$(MAKE) setup VENV=.venv-oldest TORCH='torch==2.11.* torchvision==0.26.*'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest $(PARALLEL)

test-wheel: setup ## build the wheel and pretrain from it, outside the clone
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	rm -rf build/site && $(BIN)/python -m pip install --quiet --no-deps --target build/site build/wheel/mae-*.whl
	cd build/site && PYTHONPATH=. ../../$(BIN)/python -m mae.cli.app pretrain epochs=1 run_dir=../wheel-run-$$$$

lint: setup      ## ruff and mypy alone
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup    ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove the environments and the demo
	rm -rf .venv .venv-oldest build demo
