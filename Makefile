# `make demo` and `make test` set everything up first. Nothing is written outside this folder but
# PaddleHub's home (HUB_HOME) and the cache (CLIP_HUB_CACHE).

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.10 || command -v python3)
BIN := .venv/bin
SETUP_LOG := .venv/setup.log
DEMO_LABELS := a diagram,a dog,a cat

.PHONY: setup demo test serve parity bench mini-data mini-train mini-evaluate lint clean

setup: .venv/.installed
	@$(BIN)/python scripts/install_modules.py >>$(SETUP_LOG) 2>&1 || { tail -n 20 $(SETUP_LOG); exit 1; }

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 13) or sys.exit( \
		f"Python 3.10 to 3.12 is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11 ...")'
	@echo "Setting up .venv with PaddlePaddle and PaddleHub (2.3 GB, a few minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' >$(SETUP_LOG) 2>&1 \
		|| { tail -n 20 $(SETUP_LOG); exit 1; }
	@touch $@

demo: setup
	@echo "hub run clip_mini --input_path examples/diagram.png --labels \"$(DEMO_LABELS)\""
	@$(BIN)/hub run clip_mini --input_path examples/diagram.png --labels "$(DEMO_LABELS)" 2>>$(SETUP_LOG)
	@echo
	@echo "hub run clip_mini --input_path examples/bicycle.png"
	@$(BIN)/hub run clip_mini --input_path examples/bicycle.png 2>>$(SETUP_LOG)

test: setup .venv/.installed-test
	@$(BIN)/pytest

# The suite also starts the server, Ray, a vector database and a browser, which `make demo` does without.
.venv/.installed-test: .venv/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' >>$(SETUP_LOG) 2>&1 \
		|| { tail -n 20 $(SETUP_LOG); exit 1; }
	@touch $@

# For real traffic: Ray Serve, at http://127.0.0.1:8866 unless SERVE says otherwise.
SERVE ?= clip_mini
serve: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[serve]'
	@$(BIN)/python -m clip_common serve $(SERVE)

parity: setup
	@$(BIN)/python -m tests.parity.report

# Beside torch and OpenVINO too, so it installs them.
bench: setup
	$(BIN)/python -m pip install --quiet --editable '.[dev,parity,bench]'
	$(BIN)/python -m pip install --quiet --no-deps openai-clip==1.0.1
	$(BIN)/python -m benchmarks.bench

# The trainer's pictures and runs stay outside the repository.
TRAINING := $(HOME)/.cache/clip_hub_training
RUN ?= $(TRAINING)/run

mini-data: setup
	$(BIN)/python -m pip install --quiet --editable '.[dev,train]'
	$(BIN)/python -m training.data --output $(TRAINING)/data --downloads $(TRAINING)/downloads

# A run by its name, resumed if it was begun, and the weights that it ends with.
run-of = $(BIN)/python -m training.train --data $(TRAINING)/data --output $(RUN)/$(1) $(2) \
	$(if $(wildcard $(RUN)/$(1)/checkpoint.npz),--resume)
weights-of = $(BIN)/python -m training.export $(RUN)/$(1)/checkpoint.npz $(RUN)/$(2).safetensors \
	--data $(TRAINING)/data

mini-train: setup
	$(call run-of,first)
	$(call weights-of,first,first)
	$(call run-of,second,--begin-with $(RUN)/first.safetensors --steps 1400 --small-share 0 --learning-rate 0.0012 --seed 1)
	$(call weights-of,second,second)
	$(call run-of,third,--begin-with $(RUN)/second.safetensors --steps 1500 --small-share 0 --learning-rate 0.001 --seed 2)
	$(call weights-of,third,clip_mini)

mini-evaluate: setup
	$(BIN)/python -m training.evaluate $(RUN)/clip_mini.safetensors --data $(TRAINING)/data

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info
