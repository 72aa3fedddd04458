# `make demo` and `make test` set everything up first. Nothing is written outside this folder but
# PaddleHub's home (HUB_HOME) and the cache (CLIP_HUB_CACHE).

# The first Python that the set installs on, tried by running it: a name that pyenv keeps may not run.
FITS := sys.exit(not (3, 10) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3; do \
	$$python -c 'import ensurepip, sys; $(FITS)' 2>/dev/null && echo $$python && exit; done; echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
SETUP_LOG := $(VENV)/setup.log
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO_LABELS := a diagram,a dog,a cat

# What a command prints goes to the log; if it fails, the end of the log is shown.
LOGGED = >>$(SETUP_LOG) 2>&1 || { tail -n 20 $(SETUP_LOG); echo "(all of it: $(SETUP_LOG))"; exit 1; }

.PHONY: setup demo test test-fast serve parity bench mini-data mini-train mini-evaluate lint docs constraints clean
.NOTPARALLEL:  # two pips in one environment break it
.SECONDARY:    # stamps are kept

setup: $(VENV)/.installed
	@$(BIN)/python scripts/install_modules.py $(LOGGED)

# A .venv that has no pip, as its making was cut short, or the wrong Python is made again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 13) or sys.exit( \
		f"Python 3.10 to 3.12 is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11 ...")'
	@echo "Setting up $(VENV) with PaddlePaddle and PaddleHub (2.3 GB, a few minutes the first time) ..."
	@$(BIN)/python -c 'import pip, sys; $(FITS)' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(INSTALL) --editable '.[dev]' $(LOGGED)
	@touch $@

# An extra is installed when a target first needs it; after that the target needs no network.
$(VENV)/.installed-%: $(VENV)/.installed
	@echo "Adding what [$*] of pyproject.toml names ..."
	@$(INSTALL) --editable '.[dev,$*]' $(LOGGED)
	@touch $@

# OpenAI's own code, to compare with. Its package drags in torchvision unless told not to.
$(VENV)/.installed-reference: $(VENV)/.installed-parity
	@$(INSTALL) --no-deps openai-clip==1.0.1 $(LOGGED)
	@touch $@

# Of Chinese-CLIP too, without what it would bring along.
$(VENV)/.installed-chinese-reference: $(VENV)/.installed-reference
	@$(INSTALL) --no-deps cn-clip==1.6.0 timm==1.0.31 six $(LOGGED)
	@touch $@

demo: setup
	@echo "hub run clip_mini --input_path examples/diagram.png --labels \"$(DEMO_LABELS)\""
	@$(BIN)/hub run clip_mini --input_path examples/diagram.png --labels "$(DEMO_LABELS)" 2>>$(SETUP_LOG)
	@echo
	@for name in cat parrot; do \
		echo "hub run clip_mini --input_path examples/photo_$$name.jpg"; \
		$(BIN)/hub run clip_mini --input_path examples/photo_$$name.jpg 2>>$(SETUP_LOG) || exit 1; \
	done

# The suite also starts the server, Ray, a vector database and a browser, which `make demo` does without.
test: setup $(VENV)/.installed-test
	@$(BIN)/python -m pytest

# The unit tests alone, but for the slow ones, without the extras: no Ray, no Milvus, no server, no browser.
test-fast: setup
	@$(BIN)/python -m pytest tests/unit -m "not slow"

# For real traffic: Ray Serve, at http://127.0.0.1:8866 unless SERVE says otherwise.
SERVE ?= clip_mini
serve: setup $(VENV)/.installed-serve
	@$(BIN)/python -m clip_common serve $(SERVE)

# With torch where the machine has it (make .venv/.installed-reference), else with the kept outputs.
parity: setup
	@$(BIN)/python -m tests.parity.report

# Beside torch and OpenVINO too, so it installs them.
bench: setup $(VENV)/.installed-chinese-reference $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.bench

# The site, into site/; a broken link or a name that is not there is an error.
docs: setup $(VENV)/.installed-docs
	@$(BIN)/zensical build --strict --clean

# The trainer's pictures and runs stay outside the repository.
TRAINING := $(HOME)/.cache/clip_hub_training
RUN ?= $(TRAINING)/run

mini-data: setup $(VENV)/.installed-train
	$(BIN)/python -m recipes.clip_mini.data --output $(TRAINING)/data --downloads $(TRAINING)/downloads
	$(BIN)/python -m recipes.clip_mini.features --data $(TRAINING)/data --downloads $(TRAINING)/downloads

mini-train: setup
	$(BIN)/python -m recipes.clip_mini.train --data $(TRAINING)/data --downloads $(TRAINING)/downloads \
		--output $(RUN) $(if $(wildcard $(RUN)/checkpoint.npz),--resume)
	$(BIN)/python -m recipes.clip_mini.export $(RUN)/checkpoint.npz $(RUN)/clip_mini.safetensors \
		--data $(TRAINING)/data --downloads $(TRAINING)/downloads

mini-evaluate: setup
	$(BIN)/python -m recipes.clip_mini.evaluate $(RUN)/clip_mini.safetensors --data $(TRAINING)/data

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tested versions anew, from the bounds in pyproject.toml; then run .ci/run before committing them.
constraints: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/python scripts/constraints.py
	@git --no-pager diff --stat constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info
