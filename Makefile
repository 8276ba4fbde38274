SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROTOS := common access_log process profiling

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("framewalk needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

.PHONY: setup
setup: $(READY) ## Make the virtual environment in .venv

.PHONY: wire
wire: $(READY) ## Generate the Python code of engine/wire/*.proto
	mkdir -p $(VENV)/wire
	$(BIN)/python -m grpc_tools.protoc --proto_path=framewalk/engine/wire=engine/wire \
	  --python_out=$(VENV)/wire --pyi_out=$(VENV)/wire \
	  $(PROTOS:%=framewalk/engine/wire/%.proto)
	cp $(VENV)/wire/framewalk/engine/wire/*_pb2.py $(VENV)/wire/framewalk/engine/wire/*_pb2.pyi engine/wire/

.PHONY: clean
clean: ## Remove everything that can be made again
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
