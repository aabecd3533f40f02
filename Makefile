# Everything on a fresh machine: `make demo` paints, `make test` tests. Both set up .venv from constraints.txt.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: setup setup-dev demo diagram docs zoo collapse collapse-monitor test lint audit sbom wheel-test lowest bench gpu chaos chaos-all chaos-prepare chaos-local chaos-build fuzz clean

$(VENV)/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "lienzo needs Python 3.11 or newer: set PYTHON=…"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || tools/install-debian python3-venv
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(VENV)/.installed

# The tests run a real Slurm, look for processes, fill small disks, and open pages in a browser.
setup-dev: setup
	@tools/install-debian procps mount slurm-wlm munge chromium

demo: setup
	$(RUN) examples/demo.py

# Every recipe, small, on the demo's pictures: two hours on two cores, into docs/zoo.md.
zoo: setup
	$(RUN) examples/zoo.py

# Which recipes keep all modes of ring, grid and digits, with ten seeds each: hours on two cores, into docs/collapse.md.
collapse: setup
	$(RUN) -m trainer benchmark ring grid digits --seeds 10 --out runs/collapse --markdown docs/collapse.md

# Does the collapse monitor notice provoked collapses, and does it cry wolf? An hour on two cores.
collapse-monitor: setup
	@tools/install-debian openclipart-png
	$(RUN) -m bench.collapse_monitor --out runs/collapse-monitor

# The packages and the way of a picture, from the code, into docs/packages.svg.
diagram: setup
	$(RUN) tools/package_graph.py

# The documentation as a site, into site/; it needs no network to be built or read.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

test: setup-dev
	$(RUN) -m pytest

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m bandit --quiet --configfile pyproject.toml --recursive command_line shards slurm trainer launcher

# Known holes in what we pin, and what that is as a bill of materials (CycloneDX); both ask the package index.
# Strict: a package that the database cannot be asked about is a failure.
AUDIT = .audit-venv/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off
.audit-venv/.installed:
	$(PYTHON) -m venv .audit-venv
	.audit-venv/bin/pip install --quiet --disable-pip-version-check pip-audit==2.9.0 cyclonedx-bom==7.5.0
	@touch $@

audit: .audit-venv/.installed
	$(AUDIT)

sbom: .audit-venv/.installed
	.audit-venv/bin/cyclonedx-py requirements constraints.txt --pyproject pyproject.toml --output-reproducible --output-file sbom.json

# What is published, installed into bare environments with each Python of 3.11 to 3.14 that is here, and used there.
wheel-test:
	$(PYTHON) tools/wheel_test.py

# The same with the oldest versions that we accept of all that we need.
lowest:
	$(PYTHON) tools/wheel_test.py --constraints constraints-lowest.txt --pythons 3.11

# Peers have an environment of their own: what they need is not ours, and must not move our pins.
DATASET_TOOL = d72cc7d041b42ec8e806021a205ed9349f87c6a4  # of StyleGAN2-ADA, which is no package
.bench-venv/.installed: bench/requirements.txt
	$(PYTHON) -m venv .bench-venv
	.bench-venv/bin/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	-git clone --quiet https://github.com/NVlabs/stylegan2-ada-pytorch .bench-venv/stylegan2-ada-pytorch
	-git -C .bench-venv/stylegan2-ada-pytorch checkout --quiet $(DATASET_TOOL)
	@touch $@

bench: setup .bench-venv/.installed
	@tools/install-debian openclipart-png
	$(RUN) -m bench

# All that only a GPU can show, in at most nine minutes, into runs/gpu/report.md; installs what it needs.
gpu:
	$(PYTHON) -m bench.gpu

# Random faults on a real Slurm, for as long as asked: make chaos MINUTES=30 SEED=7
chaos: setup-dev
	$(RUN) -m tests.cluster_chaos --minutes $(or $(MINUTES),30) --seed $(or $(SEED),0)

# Every fault once.
chaos-all: setup-dev
	$(RUN) -m tests.cluster_chaos --all

# openclipart-png, prepared into a bucket on loopback by a cluster that preempts: make chaos-prepare SEED=7
chaos-prepare: setup-dev
	@tools/install-debian openclipart-png
	$(RUN) -m tests.prepare_chaos --seed $(or $(SEED),0)

# Random kills on this machine alone: make chaos-local ROUNDS=50 SEED=7
chaos-local: setup
	$(RUN) -m tests.chaos --rounds $(or $(ROUNDS),10) --seed $(or $(SEED),0)

# Builds into a bucket, killed five times: make chaos-build SEED=7
chaos-build: setup
	@tools/install-debian openclipart-png
	$(RUN) -m tests.build_chaos --seed $(or $(SEED),0)

# Hostile bytes for all readers of shards, for as long as asked: make fuzz MINUTES=30 SEED=7
fuzz: setup
	$(RUN) -m tests.fuzz --minutes $(or $(MINUTES),30) --seed $(or $(SEED),0)

clean:
	rm -rf $(VENV) .bench-venv .audit-venv build dist site sbom.json *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
