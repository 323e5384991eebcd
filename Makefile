# Needs Python 3.11+ (with venv) and make. Everything is written inside this checkout.
PYTHON ?= python3
TESTS ?= tests
BIN := .venv/bin

export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
export UV_PYTHON_DOWNLOADS := never
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export RUFF_CACHE_DIR := $(CURDIR)/.cache/ruff
export XDG_CACHE_HOME := $(CURDIR)/.cache

.PHONY: demo test setup lint format clean

## the shipped model, then training from scratch on satellite images: metrics in runs/demo/report.json, images beside it
demo: setup
	$(BIN)/dpsims demo

## everything that must pass before a change goes in
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(TESTS)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

setup: .venv/.ready

# uv comes by pip with hashes, everything else by uv with the hashes of uv.lock
# (RUSTUP_HOME: pip asks `rustc` for its version, and rustup's one then writes settings into an empty home)
.venv/.ready: uv.lock pyproject.toml tools/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11; name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	RUSTUP_HOME=$(CURDIR)/.cache/rustup $(BIN)/python -m pip install --quiet --require-hashes -r tools/uv.txt
	$(BIN)/uv sync --frozen
	@touch $@

clean:
	rm -rf .venv .cache dist build
