# `make demo` and `make test` need Python >= 3.11, make and a package index; everything else they set up.
# Settings: PYTHON=python3.12 (the interpreter), WORKERS=3 (processes of pytest), ARGS='...' (more for pytest).

VENV ?= .venv
CONSTRAINTS ?= .ci/constraints.txt
PYTHON ?=
WORKERS ?= 3
ARGS ?=

INSTALL = $(VENV)/bin/python -m pip install --disable-pip-version-check --no-input -c $(CONSTRAINTS)
# one thread a worker: more would fight for the cores, and change the last bits of a sum
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

.PHONY: help demo gallery test lint unit slurm slow gpu dist clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{ printf "%-12s%s\n", $$1, $$2 }'

demo: $(VENV)/.installed ## train on digits, evaluate, say where everything is (minutes, no GPU)
	$(VENV)/bin/gan-lab train experiment=quickstart name=demo
	$(VENV)/bin/gan-lab evaluate run=runs/demo
	@echo
	@echo "sample grid  $$(ls runs/demo/samples/kimg*.png | tail -n 1)"
	@echo "metrics      $$(ls runs/demo/*.json* | xargs)"
	@echo "checkpoint   $$(ls runs/demo/checkpoints/best.ckpt)"

LAB = $(VENV)/bin/gan-lab
STYLED = run=runs/gallery_stylegan2
gallery: $(VENV)/.installed ## draw the images of the README's gallery; the first time two models are trained (quarter of an hour)
	$(LAB) train experiment=digits/stylegan2 name=gallery_stylegan2
	$(LAB) train experiment=digits/biggan name=gallery_biggan
	$(LAB) mix $(STYLED) rows=0-4 columns=10-15 row_classes=[0,2,3,5,8] column_classes=[1,4,6,7,9,3] \
	    layers=coarse truncation=0.7 truncation_center=class out=runs/gallery/mix
	$(LAB) interpolate run=runs/gallery_biggan seeds=0 classes=[3,8,0,6] columns=12 out=runs/gallery/morph
	$(LAB) directions $(STYLED) classes=3 seeds=[0] count=5 truncation=0.7 truncation_center=class out=runs/gallery/directions
	$(LAB) project $(STYLED) dataset_indices=0-7 classes=data space=w+ out=runs/gallery/projection
	mkdir -p .github/gallery
	cp runs/gallery/mix/mix_coarse.png .github/gallery/mix.png
	cp runs/gallery/morph/strip.png .github/gallery/morph.png
	cp runs/gallery/directions/directions.png .github/gallery/directions.png
	cp runs/gallery/projection/projection.png .github/gallery/projection.png

test: lint unit ## lint, types and the fast tests (minutes)

lint: $(VENV)/.installed-dev ## ruff and mypy
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

unit: $(VENV)/.installed-dev ## the fast tests alone
	$(PYTEST) -m "not slow and not gpu and not slurm"

# one after another: they share the machine's cores with the jobs that they start
slurm: $(VENV)/.installed-dev ## the tests on a SLURM that they start themselves
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m slurm --timeout 600 $(ARGS)

slow: $(VENV)/.installed-dev ## the long tests
	$(PYTEST) -m "slow and not gpu and not slurm" --timeout 1800

# where torch and a GPU are; nothing is installed, and what is missing may lie as wheels in a folder
gpu: ## what a GPU does with this checkout, in at most 8 minutes: steps, penalties, NCCL; WHEELS=folder OUT=folder
	$(or $(PYTHON),python3) -m tests.gpu $(if $(WHEELS),--wheels $(WHEELS)) $(if $(OUT),--out $(OUT)) $(ARGS)

dist: $(VENV)/.installed-dev ## build the wheel and the source distribution into dist/, and check them
	rm -rf dist
	$(VENV)/bin/python -m build --no-isolation
	$(VENV)/bin/python -m twine check --strict dist/*

clean: ## remove the environment, caches and builds; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find conf gan_lab tests -name __pycache__ -prune -exec rm -rf {} +

# bin/pip is the last file that venv writes: where it is missing the environment is begun again
$(VENV)/bin/pip:
	@bare=; for python in $(or $(PYTHON),python3.12 python3.11 python3 python); do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    if $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	        echo "creating $(VENV) with $$($$python --version)"; \
	        exec $$python -m venv $(VENV); \
	    fi; \
	    bare=$$python; \
	done; \
	if [ "$$bare" ]; then \
	    echo "$$bare cannot make virtual environments (no ensurepip): install its venv package" \
	        "(Debian, Ubuntu: apt install python3-venv), or name another with PYTHON=..." >&2; \
	else \
	    echo "no Python >= 3.11 among: $(or $(PYTHON),python3.12 python3.11 python3 python);" \
	        "install one, or name it with PYTHON=/path/to/python" >&2; \
	fi; \
	exit 1

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/pip
	@echo "installing gan_lab into $(VENV): the first time several GB, most of it torch"
	$(INSTALL) -e .
	@touch $@

# the development extras hold everything that the demo needs
$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/pip
	@echo "installing gan-laboratory[dev] into $(VENV): the first time several GB, most of it torch"
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.installed $@
