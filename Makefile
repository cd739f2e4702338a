# make run    the notebooks in local mode: no AWS account, no GPU, no Docker
# make test   lint, all tests, the notebooks' deterministic cells (nbval) and the notebooks themselves (papermill)
# make lab    JupyterLab with everything installed
#
# Environments are built on first use and kept by content under ~/.cache/local_sagemaker (LOCAL_SAGEMAKER_CACHE
# moves them); a second clone of the repository builds nothing. PYTHON=python3.12 chooses another interpreter.

SHELL := /bin/bash
PYTHON ?= python3
ARGS ?=
WORKERS ?= 2
NOTEBOOKS = $(wildcard [0-9][0-9]_*/*.ipynb)
# Two files' tests at a time: much of a job's time is one process that starts, or waits for another.
ALL_TESTS = -n $(WORKERS) --no-loadscope-reorder --nbval-lax --nbval-cell-timeout 300 $(NOTEBOOKS) tests
BUILD_ENVIRONMENT = PYTHONPATH=scripts $(PYTHON) -m local_sagemaker.environments

.PHONY: help setup setup-dev run test lint lab clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -6

setup:
	@$(BUILD_ENVIRONMENT) --name workshop --requirements requirements.txt --link .venv > /dev/null

setup-dev: setup
	@$(BUILD_ENVIRONMENT) --name workshop-dev --first scripts/local_sagemaker/base-requirements.txt \
		--requirements requirements-dev.txt --link .venv-dev > /dev/null

# make run ARGS="02 -p recipe=small"
run: setup
	@.venv/bin/python scripts/run_notebooks.py $(ARGS)

# make test ARGS="tests/test_rl_rewards.py -k format"
test: setup-dev lint
	@.venv-dev/bin/python -m pytest $(if $(ARGS),$(ARGS),$(ALL_TESTS))

lint: setup-dev
	@.venv-dev/bin/ruff check --quiet .
	@.venv-dev/bin/ruff format --check --quiet .

lab: setup
	@.venv/bin/jupyter lab

clean:
	rm -rf build .pytest_cache .ruff_cache
