# Everything runs in a virtual environment of this folder, .venv, made on first use with the versions of constraints.txt.
#   make demo                        the whole way on synthetic patients; ends with where the report lies
#   make test                        the tests; with the real scans too, where $MEDSSL_DATA says they are
#   make test ARGS=tests/io          some of them; `make demo ARGS="--only xray"` likewise
#   make PYTHON=python3.12 install   with another Python
#   make site                        the documentation as a site, to be read without a network
#   make wheelhouse                  every wheel in one folder, for a machine without internet: docs/offline.md
#   make bench-loading               one benchmark, and the peers that it is held against; make bench: all, and their page

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SIDE_BY_SIDE := -n auto --maxprocesses 8 --dist loadfile
TOPICS := $(filter-out harness lightly_peer meter plain_mae plain_simsiam remote report step volumes,$(patsubst benchmarks/%.py,%,$(wildcard benchmarks/*.py)))

LIGHTLY := .venv-lightly
WHEELHOUSE ?= wheelhouse

.PHONY: install demo test test-all test-slurm test-offline test-image wheelhouse audit kills soak lint bench docs site $(LIGHTLY)
.DEFAULT_GOAL := install

install: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "medssl needs Python 3.11 or newer, and $(PYTHON) is older or missing: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/medssl demo --out runs/demo $(ARGS)

test: install
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not install and not slurm' $(ARGS)

test-all: install
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)
	$(MAKE) test-offline ARGS=

test-slurm: install
	$(BIN)/python -m pytest -m slurm tests/train/test_slurm.py $(ARGS)

# The whole demo, on a tenth of its patients, with the network cut: status 3 where anything was tried to reach.
test-offline: install
	rm -rf runs/offline
	$(BIN)/python tests/offline/cut.py $(BIN)/medssl demo --out runs/offline --patients 0.1 $(ARGS)

# As root, with Debian's buildah, crun and debootstrap: docs/containers.md. make test-all has it too, where these are there.
test-image: wheelhouse
	docker/test.sh

# Every wheel that medssl runs with, at the versions of constraints.txt, for this Python and system: docs/offline.md. And the two
# that docker/Dockerfile builds with.
# PIP_EXTRA_INDEX_URL, set to the index of CPU builds that torch's installation page names, takes that, a tenth as large.
wheelhouse: install
	rm -rf $(WHEELHOUSE)
	$(BIN)/python -m pip wheel --disable-pip-version-check --quiet -c constraints.txt -w $(WHEELHOUSE) torch . setuptools cyclonedx-bom

# Known faults of the pinned versions, asked of PyPI. It fails, too, where that does not know one of them: see SECURITY.md.
audit: install
	test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && \
	  .venv-audit/bin/python -m pip install --disable-pip-version-check --quiet pip-audit==2.10.1; }
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict $(ARGS)

kills: install
	PYTHONPATH=tests $(BIN)/python tests/train/kills.py $(ARGS)

soak: install
	PYTHONPATH=tests $(BIN)/python tests/train/soak.py $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/lint-imports

bench: $(addprefix bench-,$(TOPICS))
	$(BIN)/python benchmarks/report.py

bench-%: $(VENV)/.peers
	$(BIN)/python benchmarks/$*.py $(ARGS)

$(VENV)/.peers: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[bench]'
	@touch $@

bench-mae bench-simsiam: $(LIGHTLY)/.installed

# lightly imports torchvision, which does not import beside a CPU build of torch as it is: benchmarks/lightly_peer.py
# knows how, in an environment of its own. Without their dependencies, so that none brings another torch.
$(LIGHTLY): $(LIGHTLY)/.installed

$(LIGHTLY)/.installed: constraints.txt
	test -x $(LIGHTLY)/bin/python || $(PYTHON) -m venv $(LIGHTLY)
	$(LIGHTLY)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt \
	  torch numpy pillow pyyaml safetensors tqdm huggingface_hub
	$(LIGHTLY)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps \
	  torchvision==0.29.1 timm==1.0.31 lightly==1.6.0 lightly_utils==0.0.2
	@touch $@

docs: install
	$(BIN)/python docs/make_reference.py

# not --quiet, which would keep the warnings from --strict too
site: $(VENV)/.site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo site/index.html

$(VENV)/.site: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[docs]'
	@touch $@
