# Needs only python3 (3.11 or newer), make and gcc. Every target makes what it needs in .venv, quietly, and only once;
# again when pyproject.toml changes. ARGS goes through: make test ARGS="-k grid", make bench ARGS="--case labels-nearest".

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# The first Python that is new enough; another one by: make PYTHON=python3.12 test
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help docs demo test test-integrations conventions loader lint types parity transform-parity front bench bench-full regress tiles orders attack kernels reliability soak cohort compile instructions gpu ci clean
.DEFAULT_GOAL := help
# A stamp is the sign of a finished installation: not to be removed as an intermediate file.
.SECONDARY:
.DELETE_ON_ERROR:
# Where it is set, every process that a test starts would translate the package's Python anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 26

demo: $(VENV)/.cli ## resample a synthetic chest CT, compare with SimpleITK, draw a picture
	$(BIN)/gpuresample demo $(ARGS)

# Kernels compile while pip, which takes one core, brings what the tests need beyond them.
test: $(VENV)/.cli ## the tests
	@$(BIN)/python -m gpuresample.engines.cpu.ahead & ahead=$$!; \
		$(MAKE) --no-print-directory --silent $(VENV)/.test; made=$$?; wait $$ahead && exit $$made
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

# torch and what builds on it: large, slow to install, and nothing that `make test` may lean on.
test-integrations: ## the tests against torch, MONAI, TorchIO, nnU-Net, in an environment of their own
	@$(MAKE) --no-print-directory VENV=$(VENV)-integrations ARGS="$(ARGS)" integrations-here

conventions: ## other libraries' conventions against their own calls, in the environment of the integrations
	@$(MAKE) --no-print-directory VENV=$(VENV)-integrations ARGS="$(ARGS)" MODULE=benchmarks.conventions module-here

loader: ## volumes per second of a torch data loader: SimpleITK in its workers, ours in its workers, served to them, on the GPU
	@$(MAKE) --no-print-directory VENV=$(VENV)-integrations ARGS="$(ARGS)" MODULE=benchmarks.loader module-here

.PHONY: integrations-here module-here
module-here: $(VENV)/.integrations
	$(BIN)/python -m $(MODULE) $(ARGS)

integrations-here: $(VENV)/.integrations
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile tests/faces/integrations $(ARGS)

docs: $(VENV)/.docs ## the site of docs/, its gallery run, warnings as errors: docs/_build/html
	MPLBACKEND=agg $(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going -b html docs docs/_build/html $(ARGS)

lint: $(VENV)/.lint ## ruff: rules and formatting; the workflows against their schema and zizmor's rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet .github

types: $(VENV)/.lint $(VENV)/.cli ## mypy, strict
	$(BIN)/mypy

parity: $(VENV)/.bench ## distance from SimpleITK: all interpolations, blurs, voxel types, geometries
	$(BIN)/python -m benchmarks.parity $(ARGS)

transform-parity: $(VENV)/.bench ## 10,000 drawn transforms against SimpleITK: voxels outside the contract, ties
	$(BIN)/python -m benchmarks.transform_parity $(ARGS)

# affine-rs has wheels for some machines only; without it, its line of the table stays empty.
front: $(VENV)/.bench ## rotated and deformed grids against SimpleITK and affine-rs, beside their targets; ARGS="--out benchmarks/results"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check affine-rs==0.2.0 || echo "affine-rs cannot be installed here" >&2
	$(BIN)/python -m benchmarks.front $(ARGS)

bench: $(VENV)/.bench ## speed and memory against the peers, in about 4 minutes: benchmarks/results/<machine>-<date>/
	$(BIN)/gpuresample bench --profile quick --out benchmarks/results $(ARGS)

# All peers, torch and what builds on it included.
bench-full: ## the whole jobs against all peers, in the environment of the integrations; an hour or more
	@$(MAKE) --no-print-directory VENV=$(VENV)-integrations ARGS="$(ARGS)" bench-here

.PHONY: bench-here
bench-here: $(VENV)/.integrations
	$(BIN)/gpuresample bench --profile full --out benchmarks/results $(ARGS)

# ARGS="--against main" needs no baseline, and is the one to trust on a shared machine.
regress: $(VENV)/.bench ## slower than it was? against this machine's stored baseline, or ARGS="--against COMMIT"
	$(BIN)/python -m benchmarks.regress $(ARGS)

# The first run compiles kernels that check their indices, which takes some minutes more.
attack: $(VENV)/.test ## drawn attacks in child processes: guarded memory, checked indices, odd arguments, far coordinates, command lines
	$(BIN)/python -m benchmarks.attack $(ARGS)

kernels: $(VENV)/.test ## the CUDA kernels run on the CPU, by g++ (make test does it too)
	$(BIN)/python -m pytest -m kernels $(ARGS)

reliability: $(VENV)/.test ## batches killed, interrupted, starved of disk, crowded
	GPURESAMPLE_SLOW=1 $(BIN)/python -m pytest tests/batch/test_reliability.py $(ARGS)

# A minute or two on two cores.
soak: $(VENV)/.test ## 10,000 small volumes in one process: memory, threads and open files stay flat
	GPURESAMPLE_SLOW=1 $(BIN)/python -m pytest -s tests/test_soak.py $(ARGS)

cohort: $(VENV)/.test ## 200 volumes, killed twice and continued, against the single command bit for bit
	$(BIN)/python -m benchmarks.cohort $(ARGS)

compile: $(VENV)/.cli ## the CUDA kernels compiled for every GPU generation: registers, shared memory, spills
	@$(BIN)/python -m pip install -qq --disable-pip-version-check nvidia-cuda-nvrtc
	$(BIN)/python -m benchmarks.compile_table $(ARGS)

instructions: $(VENV)/.cli ## what the CUDA kernels execute for every voxel, counted without a GPU
	@$(BIN)/python -m pip install -qq --disable-pip-version-check nvidia-cuda-nvrtc nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
	$(BIN)/python -m benchmarks.instructions $(ARGS)

# An interpreter as it is, with CuPy, pytest, hypothesis, scipy and nibabel in it: nothing is installed.
PY ?= python3
gpu: ## all that needs a GPU: tests, sanitizers, kernel timings; make gpu PY=/path/to/python3
	$(PY) -m benchmarks.gpu $(ARGS)

tiles: $(VENV)/.bench ## a volume of 8 GB to an OME-Zarr pyramid: time and peak memory
	$(BIN)/python -m benchmarks.tiles $(ARGS)

orders: $(VENV)/.bench ## the cost rule that orders the passes, against the clock
	$(BIN)/python -m benchmarks.orders $(ARGS)

ci: ## everything that a change must pass
	.ci/run

clean: ## remove .venv, caches, builds and what the demo wrote
	rm -rf $(VENV) $(VENV)-bench $(VENV)-integrations build dist demo-output docs/_build docs/examples .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; name one by: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "$(PYTHON) is not Python 3.11 or newer" >&2; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no virtual environment could be made (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }

# One stamp per extra of pyproject.toml: the demo need not wait for the test tools.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	@echo "installing gpuresample[$*] into $(VENV)"
	@GPURESAMPLE_BUILD=none $(BIN)/python -m pip install -qq --disable-pip-version-check --editable ".[$*]"
	@touch $@
