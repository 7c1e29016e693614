# Drey. `make help` lists the targets. Everything runs in .venv, made by `make venv`.
PYTHON ?= $(firstword $(shell command -v python3.11 python3) python3.11)
VENV := .venv
BIN := $(VENV)/bin
PVS ?= 2000
N ?= 5
BUSY ?= 0
# Whether `make ci` tests a little on a Kubernetes with pods, where it can: 0 or 1.
CLUSTER_TEST ?= 1
# Tests wait more than they compute: with more workers than processors the suite is done sooner.
WORKERS ?= 3
# Seconds after which the programs of Kubernetes that are not built by then are done without.
WITHIN ?= 1500
BEGUN := $(shell date +%s)
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Without compiled files every process that the tests and the demo start takes seconds longer.
unexport PYTHONDONTWRITEBYTECODE

MEMBERS := libs/contracts libs/core libs/runtime libs/ca libs/stack libs/machine libs/client libs/cli \
	services/snapshot services/monitor services/restore services/gateway
# What runs, and then what tests need: `make demo` installs the first only.
RUN_STAMP := $(VENV)/.installed-run
STAMP := $(VENV)/.installed
# By the interpreter, never by a script's first line, which takes no long path and no blanks.
PY := $(BIN)/python
INSTALL := $(BIN)/uv pip install -q --compile-bytecode --python $(PY) -c constraints.txt --build-constraints constraints.txt
NATIVE := libs/ca/setup.py $(wildcard libs/ca/src/drey_ca/_native/*.p*)
MODULES := proto libs/contracts/proto
# Google's classes come with their own package.
GENERATED := --path proto/drey --path libs/contracts/proto/drey

.DEFAULT_GOAL := help
.PHONY: help web cluster-programs cluster-images cluster-test chart docs venv demo test test-times ci bench asan lint types contracts contracts-check up clean format baseline

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

venv: $(STAMP) ## Make .venv with everything in it

$(RUN_STAMP): constraints.txt $(addsuffix /pyproject.toml,$(MEMBERS)) $(NATIVE)
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: apt-get install python3.11 python3.11-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is needed: apt-get install python3.11-venv" >&2; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check uv -c constraints.txt
	$(INSTALL) $(addprefix -e ,$(MEMBERS:libs/stack=libs/stack[web]))
	@$(PY) -c 'import drey_ca._native' 2>/dev/null || echo "No C compiler, or no Python headers: Channel Access runs through aioca, many times slower. For the native table: apt-get install gcc libc6-dev python3-dev, then make clean venv" >&2
	@touch $@

$(STAMP): $(RUN_STAMP) pyproject.toml libs/testing/pyproject.toml
	$(INSTALL) --group dev -e libs/testing
	@touch $@

demo: $(RUN_STAMP) ## Walk the main job on a simulated machine (PVS=2000, DEMO_JSON=file)
	@$(PY) -m drey_cli.main demo --pvs $(PVS) $(if $(DEMO_JSON),--report "$(DEMO_JSON)")

up: $(RUN_STAMP) ## Start the whole stack in the foreground, state in .drey
	@$(PY) -m drey_cli.main up

cluster-programs: venv ## Build etcd, the Kubernetes API server and helm into the user's cache, once (Go; 6 minutes; WITHIN=1500 seconds)
	$(PY) -m drey_testing.cluster.programs --within $(WITHIN) etcd kube-apiserver helm

cluster-images: venv ## Build the images with the Dockerfiles on a Debian base, and print their sizes (root on Debian)
	$(PY) -m drey_testing.cluster.images

cluster-test: venv ## Install the chart on a one-node Kubernetes with pods and test it (root on Debian; TESTS="-k killed")
	$(PY) -m drey_testing.cluster.suite $(TESTS)

test: venv ## Run all tests; what fails is looked at once more, alone, and named (WORKERS=3, STRICT=1: not)
	@$(MAKE) --no-print-directory cluster-programs || echo "WITHOUT KUBERNETES: the tests of Leases and of the chart will be skipped" >&2
	$(PY) tests/tools/suite.py --workers $(WORKERS) $(if $(STRICT),--strict)

test-times: venv ## Run all tests N times, beside BUSY busy loops: a table of counts (N=5 BUSY=0)
	$(PY) tests/tools/times.py $(N) --busy $(BUSY)

asan: venv ## The native channel table's suite under AddressSanitizer (needs gcc; 5 minutes)
	@sh tests/tools/native_asan.sh

chart: venv ## Write the chart's schema from the settings, and the plain manifests from the chart
	$(PY) k8s/generate.py

lint: venv ## ruff, import contracts, buf lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	$(BIN)/buf lint
	$(PY) tests/tools/contracts_rules.py
	$(PY) docs/generate.py --check

types: venv ## mypy, strict, tests included
	$(PY) -m mypy

web: venv ## Build the operators' page, which is shipped built, and test its parts (Node 20 or later)
	@command -v npm >/dev/null || { echo "npm is needed: Node 20 or later" >&2; exit 1; }
	cd web && npm ci --silent && npm run -s generate && npm run -s types && npm test -s && npm run -s build
	$(PY) web/record.py

docs: venv ## Generate the reference from protos and settings
	$(PY) docs/generate.py

contracts: venv ## Generate the Python classes from proto/
	find libs/contracts/drey -name '*_pb2*' -delete
	$(BIN)/buf generate $(GENERATED)
	$(BIN)/python libs/contracts/tools/service_config.py proto/service_config.json $(BIN)/buf
	$(BIN)/python libs/contracts/tools/openapi.py libs/stack/drey_stack/openapi.json $(BIN)/buf
	@for d in $$(find libs/contracts/drey -type d -not -name __pycache__); do touch $$d/__init__.py; done

contracts-check: venv ## buf breaking against the last landed contracts, and no drift of generated code
	for module in $(MODULES); do $(BIN)/buf breaking $$module --against $$module/baseline.binpb || exit 1; done
	$(PY) tests/tools/contracts_drift.py

baseline: venv ## Take the contracts and the chart as they are for landed
	for module in $(MODULES); do $(BIN)/buf build $$module -o $$module/baseline.binpb || exit 1; done
	$(PY) k8s/generate.py --landed

format: venv ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci: venv lint types contracts-check test ## What CI runs, at its end a little on a Kubernetes with pods, where it can (CLUSTER_TEST=0: not)
ifneq ($(CLUSTER_TEST),1)
	@echo "NOT TESTED HERE: the chart on a Kubernetes with pods. \`make cluster-test\` does it." >&2
else
	$(PY) -m drey_testing.cluster.suite --short --begun $(BEGUN)
endif

bench: venv ## Run all benchmarks, results in bench/results
	$(PY) -m bench all

clean: ## Remove what was made here, .venv included
	rm -rf $(VENV) .drey .drey-node-logs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
