# make setup | serve | test: everything runs in .venv, which `setup` makes and keeps up to date.
.PHONY: setup serve test lint clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
STAMP := $(VENV)/.installed

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	@test -n "$(PYTHON)" || { echo "box2mask needs Python 3.11, and there is no python3 on the PATH: install it, or give its path: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { echo "box2mask needs Python 3.11, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1): install Python 3.11, or give its path: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian and Ubuntu: apt install python3.11-venv)" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip==26.3
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@# mmcv asks for the OpenCV that draws windows, which needs the libraries of a desktop; the headless one does not.
	$(VENV)/bin/python -m pip uninstall --quiet --yes opencv-python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps opencv-python-headless==5.0.0.93
	@touch $(STAMP)

serve: setup
	@exec $(VENV)/bin/box2mask serve

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint
	$(VENV)/bin/python -m pytest

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
