# Everything runs in .venv, which is made and kept up to date as it is needed: `install` has what serving needs, `setup`
# what development needs besides. Only the tests of what is for Azure, CVAT, Label Studio and S3 need environments of
# their own too: .venv-azureml, .venv-cvat, .venv-label-studio and .venv-s3.
.PHONY: install setup serve test test-bfloat16 label-studio-test ray-test lint bench peers soak load docs lock sbom audit image-test fresh-test clean

VENV := .venv
AZUREML := .venv-azureml
CVAT := .venv-cvat
LABEL_STUDIO := .venv-label-studio
S3 := .venv-s3
AUDIT := .venv-audit
PEERS := .venv-peers

# As pyproject.toml's requires-python.
NEEDS := box2mask needs Python 3.11.2 to 3.14
FITS := import sys; sys.exit(not (3, 11, 2) <= sys.version_info[:3] < (3, 15))
# The first that fits: the one that .venv has been made with, then the system's own.
ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell base=$$($(VENV)/bin/python -c 'import sys; print(sys._base_executable)' 2>/dev/null); \
	for python in $$base python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c '$(FITS)' 2>/dev/null && echo "$$python" && exit; done; command -v python3)
endif
INSTEAD := install one, or give its path: make PYTHON=/path/to/python3.13

# Which build of torch: docker/torch_build.py.
TORCH ?= auto
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Another TORCH is another stamp, and so installs anew.
STAMP := $(VENV)/.serving-$(TORCH)
DEVELOPMENT := $(VENV)/.development
AZUREML_STAMP := $(AZUREML)/.installed
CVAT_STAMP := $(CVAT)/.installed
LABEL_STUDIO_STAMP := $(LABEL_STUDIO)/.installed
S3_STAMP := $(S3)/.installed

install: $(STAMP)

setup: $(DEVELOPMENT)

PIP := $(VENV)/bin/python -m pip --quiet --quiet --disable-pip-version-check
PINNED := --constraint constraints.txt --build-constraint constraints.txt
# mmcv asks for the OpenCV that draws windows, which needs the libraries of a desktop; the headless one does not.
define headless
@$(PIP) uninstall --yes opencv-python
@$(PIP) install --force-reinstall --no-deps opencv-python-headless==5.0.0.93
endef

$(STAMP): pyproject.toml constraints.txt Makefile
	@test -n "$(PYTHON)" || { echo "$(NEEDS), and there is no python3 on the PATH: $(INSTEAD)" >&2; exit 1; }
	@command -v "$(PYTHON)" >/dev/null || { echo "$(NEEDS), and there is no $(PYTHON): $(INSTEAD)" >&2; exit 1; }
	@"$(PYTHON)" -c '$(FITS)' 2>/dev/null || { echo "$(NEEDS), and $(PYTHON) is $$("$(PYTHON)" --version 2>&1 | head -n 1): $(INSTEAD)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install $(notdir $(PYTHON))-venv)" >&2; exit 1; }
	@echo "Installing into $(VENV) what serving needs; this takes minutes, most of them for torch"
	@# A .venv of another Python, or of one that is gone, is made anew.
	@version='import sys; print(sys.version_info[:2])'; \
		test "$$($(VENV)/bin/python -c "import pip; $$version" 2>/dev/null)" = "$$("$(PYTHON)" -c "$$version")" || \
		"$(PYTHON)" -m venv --clear $(VENV)
	@$(PIP) install --upgrade pip==26.3
	@$(VENV)/bin/python docker/torch_build.py $(TORCH) --index "$(TORCH_INDEX)"
	@$(PIP) install $(PINNED) --editable .
	$(headless)
	@rm -f $(VENV)/.serving-*
	@touch $(STAMP)

$(DEVELOPMENT): $(STAMP)
	@echo "Installing into $(VENV) what development needs besides"
	@$(PIP) install $(PINNED) --editable '.[dev]'
	$(headless)
	@touch $(DEVELOPMENT)

# AzureML's own packages, whose pins exclude ours. What they do not bring, torch above all, is found in .venv behind them.
$(AZUREML_STAMP): $(STAMP) docker/azureml/constraints.txt
	@echo "Installing AzureML's packages into $(AZUREML), for the tests"
	@$(VENV)/bin/python -m venv --clear $(AZUREML)
	@$(AZUREML)/bin/python -m pip --quiet --quiet --disable-pip-version-check install --upgrade pip==26.3
	@$(AZUREML)/bin/python -m pip --quiet --quiet --disable-pip-version-check install \
		--constraint docker/azureml/constraints.txt azureml-inference-server-http azure-ai-ml azure-identity
	@packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
		printf '%s\n' "$$($(VENV)/bin/python -c "$$packages")" "$(CURDIR)" > "$$($(AZUREML)/bin/python -c "$$packages")/box2mask.pth"
	@touch $(AZUREML_STAMP)

# What CVAT's makers publish, whose pins exclude ours too; it needs nothing of ours.
$(CVAT_STAMP): $(STAMP) tests/cvat_requirements.txt
	@echo "Installing CVAT's packages into $(CVAT), for the tests"
	@$(VENV)/bin/python -m venv --clear $(CVAT)
	@$(CVAT)/bin/python -m pip --quiet --quiet --disable-pip-version-check install --requirement tests/cvat_requirements.txt
	@touch $(CVAT_STAMP)

# A real Label Studio for its tests, and a database of it that is ready: its tables are not made anew for each run. What
# it is pinned to has no wheels for the newest Pythons; there it is left out, and its tests are skipped.
$(LABEL_STUDIO_STAMP): $(STAMP) tests/label_studio/constraints.txt
	@if $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 14))'; then \
		echo "Installing Label Studio into $(LABEL_STUDIO), for the tests; this takes minutes" && \
		$(VENV)/bin/python -m venv --clear $(LABEL_STUDIO) && \
		$(LABEL_STUDIO)/bin/python -m pip --quiet --quiet --disable-pip-version-check install --upgrade pip==26.3 && \
		$(LABEL_STUDIO)/bin/python -m pip --quiet --quiet --disable-pip-version-check install \
			--constraint tests/label_studio/constraints.txt label-studio && \
		LABEL_STUDIO_BASE_DATA_DIR="$(CURDIR)/$(LABEL_STUDIO)/data" COLLECT_ANALYTICS=false LATEST_VERSION_CHECK=0 \
			$(LABEL_STUDIO)/bin/label-studio init tests --no-browser --username labels@example.com \
			--password label-studio-tests >$(LABEL_STUDIO)/init.log 2>&1 && touch $(LABEL_STUDIO_STAMP); \
	else echo "Label Studio is not installed on Python 3.14: its tests are skipped"; fi

# Servers of S3 and of Google's store for the tests, whose pins exclude ours.
$(S3_STAMP): $(STAMP) tests/s3_requirements.txt
	@echo "Installing servers of object stores into $(S3), for the tests"
	@$(VENV)/bin/python -m venv --clear $(S3)
	@$(S3)/bin/python -m pip --quiet --quiet --disable-pip-version-check install --requirement tests/s3_requirements.txt
	@touch $(S3_STAMP)

serve: install
	@exec $(VENV)/bin/box2mask serve

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# A thread for each process: with torch's default of one per core in each, they spend more than half of the cores on
# waiting for one another.
test: lint $(AZUREML_STAMP) $(CVAT_STAMP) $(LABEL_STUDIO_STAMP) $(S3_STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses $(or $(PROCESSES),2) --dist loadfile --no-loadscope-reorder

# All tests with a real Label Studio; `make test` has those that take under two minutes.
label-studio-test: setup $(LABEL_STUDIO_STAMP)
	LABEL_STUDIO_TESTS=all OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/label_studio tests/app/label_studio

# All tests on a real Ray cluster of several nodes; `make test` has those that take under two minutes.
ray-test: setup $(S3_STAMP)
	RAY_TESTS=all OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/ray
	BOX2MASK_TEST_SERVICE=ray OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/app

# The tests that hold in any number format, in bfloat16: meant for processors that multiply it, as others take six times as long.
test-bfloat16: setup
	BOX2MASK_DTYPE=bfloat16 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m any_dtype \
		--numprocesses $(or $(PROCESSES),2) --dist loadfile --no-loadscope-reorder

# Takes a while; `.venv/bin/python -m benchmarks --help` has the cases and sizes to choose from.
bench: setup
	$(VENV)/bin/python -m benchmarks

# Other runtimes, for the cases of the benchmark that run beside them: `python -m benchmarks --cases peer-encode ...`
peers: setup $(PEERS)/.installed

$(PEERS)/.installed: benchmarks/peers/requirements.txt
	@$(VENV)/bin/python -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip --quiet --disable-pip-version-check install --requirement benchmarks/peers/requirements.txt
	@touch $@

# The documents as a site in site/, to be opened or served from there; any link that leads nowhere is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --config-file docs/site/mkdocs.yml
# Hours at saturation, every answer compared: MINUTES and CLIENTS. `.venv/bin/python -m benchmarks.reliability` has the rest.
soak: setup
	$(VENV)/bin/python -m benchmarks.reliability soak --minutes $(or $(MINUTES),30) --clients $(or $(CLIENTS),64)

# From one client to a thousand, by Locust, which nothing else needs: CLIENTS="1 64 1000" and SECONDS for each of them.
load: setup
	@$(PIP) install --constraint constraints.txt $$($(VENV)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["load"])')
	$(VENV)/bin/python -m benchmarks.reliability load --seconds $(or $(SECONDS),30) $(if $(CLIENTS),--clients $(CLIENTS))

# The image's packages with their hashes, after a change of pyproject.toml or a constraints.txt.
lock: setup
	$(VENV)/bin/python docker/lock.py

sbom: setup
	$(VENV)/bin/python docker/sbom.py $(SBOM)

# Known vulnerabilities of the image's packages, by a database that is asked over the network; --strict: a package that
# the database does not know is no pass either.
audit: $(AUDIT)/bin/pip-audit
	@for lock in docker/requirements*.lock; do \
		echo "$$lock"; $(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip -r "$$lock" || exit 1; done

$(AUDIT)/bin/pip-audit:
	@"$(PYTHON)" -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip --quiet --disable-pip-version-check install pip-audit==2.10.1

# Builds the image and uses it; as root, with buildah and debootstrap. IMAGE_TEST="--help" shows the options.
image-test: setup
	$(VENV)/bin/python docker/image_test.py $(IMAGE_TEST)

# `make serve` and `make test` on minimal Debians; as root, with debootstrap. FRESH_TEST="--help" shows the options.
fresh-test: install
	$(VENV)/bin/python docker/fresh_test.py $(FRESH_TEST)

clean:
	rm -rf $(VENV) $(AZUREML) $(CVAT) $(LABEL_STUDIO) $(S3) $(AUDIT) $(PEERS) site build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
