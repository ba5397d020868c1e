# make demo    set up, then the whole promise in one command
# make check   lint, types and the quick tests
# make test    lint, types and every test; what CI runs
# make docs    the manual, from docs/ into site/: open site/index.html
# make gpu     where there is an NVIDIA GPU: the tests that need one, then benchmarks/gpu.py
#
# The first call makes .venv: about 6 GB on Linux, where PyPI's torch brings CUDA. With
# TORCH_INDEX=https://download.pytorch.org/whl/cpu it is about 1 GB.

PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
# Threads that wait do not spin: several processes of tests share the cores.
PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

.PHONY: demo check lint test docs gpu clean

demo: $(INSTALLED)
	$(BIN)/radapter demo

check: lint
	$(PYTEST) -m "not slow"

test: lint
	$(PYTEST)

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

gpu: $(INSTALLED)
	$(BIN)/python -m pytest -q -n 0 -m gpu; tests=$$?; $(BIN)/python benchmarks/gpu.py && exit $$tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "radapter needs Python 3.11 or newer; name one with PYTHON=..."; exit 1; }
	@echo "Setting up .venv ($(if $(TORCH_INDEX),about 1 GB,about 6 GB on Linux; with \
	TORCH_INDEX=https://download.pytorch.org/whl/cpu about 1 GB))"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e ".[dev]"
	@touch $@
	@du -sh .venv | awk '{print ".venv is ready: " $$1}'

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache
