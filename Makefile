# make run    the notebooks in local mode: no AWS account, no GPU, no Docker; side by side where there are four cores
# make rehearse  the notebooks as in SageMaker Studio, against the local endpoint posing as AWS
# make seeds  the comparisons that notebooks rest on, with three seeds each: what is missing of NN_*/recorded
# make bench  what training costs beside plain TRL, how it grows and scales, the first run: two hours, docs/bench.md
# make lab    JupyterLab with everything installed
# make studio the same for a JupyterLab that is there already, as in SageMaker Studio: an environment and a kernel
#
# Tests, in rungs:
# make lint   format and lint (ruff); make types: types of scripts/ (ty)
# make check  both, and every test that needs no endpoint, job or notebook: three minutes, before each commit
# make test   everything: also the tests with the markers endpoint, job and notebook, the notebooks' deterministic
#             cells (nbval) and the notebooks themselves (papermill)
# make drift  what the newest TRL, SDK, Unsloth and verl would break, in environments that are thrown away
#
# make test ARGS="-m endpoint tests"  chooses one of the upper rungs; ARGS="tests/test_rl_rewards.py -k format" a file
#
# Environments are built on first use and kept by content under ~/.cache/local_sagemaker (LOCAL_SAGEMAKER_CACHE
# moves them); a second clone of the repository builds nothing. PYTHON=python3.12 chooses another interpreter.

SHELL := /bin/bash
# Environments come without compiled modules. The first process that imports one compiles it, for all others.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
ARGS ?=
WORKERS ?= 2
NOTEBOOKS = $(wildcard [0-9][0-9]_*/*.ipynb)
# Two files' tests at a time: much of a job's time is one process that starts, or waits for another. With three on two
# cores, some tests wait for a process for longer than they should.
UNMARKED_TESTS = -n $(WORKERS) -q -m "not endpoint and not job and not notebook" tests
ALL_TESTS = -n $(WORKERS) --durations=40 --no-loadscope-reorder --nbval-lax --nbval-cell-timeout 300 $(NOTEBOOKS) tests
LINT = .venv-dev/bin/ruff check --quiet . && .venv-dev/bin/ruff format --check --quiet .
TYPES = .venv-dev/bin/ty check --output-format concise
BUILD_ENVIRONMENT = PYTHONPATH=scripts $(PYTHON) -m local_sagemaker.environments

.PHONY: help setup setup-dev run rehearse seeds bench check test lint types drift lab studio clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^Environments/,$$d'

setup:
	@$(BUILD_ENVIRONMENT) --name workshop --requirements requirements.txt --disk-gb 2.5 --link .venv > /dev/null

setup-dev: setup
	@$(BUILD_ENVIRONMENT) --name workshop-dev --first scripts/local_sagemaker/base-requirements.txt \
		--requirements requirements-dev.txt --link .venv-dev > /dev/null

# make run ARGS="02 -p recipe=small", or ARGS="--at-once 2" for two notebooks side by side
run: setup
	@.venv/bin/python scripts/run_notebooks.py $(ARGS)

# make rehearse ARGS=02
rehearse: setup
	@.venv/bin/python scripts/rehearse_notebooks.py $(ARGS)

# make seeds ARGS="02 rates": docs/recorded-runs.md
seeds: setup
	@.venv/bin/python scripts/record_seeds.py $(ARGS)

# make bench ARGS=growth, or first_run, library, learning, scaling, page; nothing else should run meanwhile
bench: setup-dev
	@PYTHONPATH=scripts .venv-dev/bin/python -m bench $(ARGS)

# Torch's threads would only wait for each other where each worker has one core.
check: setup-dev
	@$(LINT) && $(TYPES) && OMP_NUM_THREADS=1 .venv-dev/bin/python -m pytest $(UNMARKED_TESTS); \
		status=$$?; echo "make check: $$SECONDS s"; exit $$status

# make test ARGS="tests/test_rl_rewards.py -k format"
test: setup-dev lint types
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} .venv-dev/bin/python -m pytest $(if $(ARGS),$(ARGS),$(ALL_TESTS))

lint: setup-dev
	@$(LINT)

types: setup-dev
	@$(TYPES)

# make drift ARGS=trl
drift:
	@PYTHONPATH=scripts $(PYTHON) scripts/check_drift.py $(ARGS)

lab: setup
	@.venv/bin/jupyter lab

# docs/studio.md. Nothing is installed into that JupyterLab, and pip keeps no downloads in the home.
studio: export PIP_NO_CACHE_DIR = 1
studio: setup
	@"$$(readlink .venv)/bin/python" -m ipykernel install --user \
		--name rl-workshop --display-name "RL workshop" > /dev/null
	@$(PYTHON) scripts/name_kernel.py
	@echo 'The kernel "RL workshop" is there. Open a notebook; if another kernel runs it, choose: Kernel > Change Kernel.'

clean:
	rm -rf build .pytest_cache .ruff_cache
