# Everything happens in .venv: nothing to activate, no sudo, and the system's own Python stays as it is.
PY ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo test lint types notebooks clean

demo: .venv/.ok
	@$(BIN)/geo-mf demo

test: .venv/.ok-dev
	@$(BIN)/pytest

lint: .venv/.ok-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.ok-dev
	@$(BIN)/pyright

# The pages beside the notebooks' sources, run and rendered again.
notebooks: .venv/.ok-dev
	@$(BIN)/python notebooks/render.py

clean:
	rm -rf .venv indexes/*/ .pytest_cache .ruff_cache .hypothesis

# What a user needs. torch comes first and alone, so that nothing else decides its version.
.venv/.ok: pyproject.toml constraints.txt
	@command -v $(PY) >/dev/null || { echo "error: there is no $(PY) here; install Python 3.11 or newer, or name it: make PY=/path/to/python3"; exit 1; }
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PY) is $$($(PY) -V 2>&1), and geo_mf needs Python 3.11 or newer; name another one: make PY=python3.12"; exit 1; }
	@test -x $(BIN)/pip || $(PY) -m venv .venv || { rm -rf .venv; echo "error: Python cannot make a virtual environment; on Debian and Ubuntu install it with: apt install python3-venv"; exit 1; }
	@echo "Installing into .venv; this takes a minute or two, once."
	@$(PIP) torch==2.13.0
	@$(PIP) -e '.[demo]'
	@touch $@

# What a developer needs besides.
.venv/.ok-dev: .venv/.ok
	@echo "Installing the tools for tests into .venv."
	@$(PIP) -e '.[dev]'
	@touch $@
