SHELL := /bin/bash
.DEFAULT_GOAL := help
# Containers set it. Without compiled files each process compiles all that it loads.
unexport PYTHONDONTWRITEBYTECODE

# The first Python of at least 3.11; name another with `make PYTHON=...`.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
BOOKINFO := fixtures/captures/bookinfo
DEMO := build/demo.duckdb
TYPED := engine receiver server queries fixtures cli
SIZE := large
COUNT := 100000
# Each file in one process, so that what its tests share is made once. One more process than there
# are processors, as tests of servers wait; each has half a gigabyte.
PROCESSES := $(shell echo $$(( $$(nproc) < 5 ? $$(nproc) + 1 : 6 )))
TOGETHER := --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
LOCKS := requirements
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCKED := $(PIP) install --progress-bar off --require-hashes
# setuptools warns, a screen long, of editable installs in packages whose folders have other names.
PROJECT := PYTHONWARNINGS=ignore $(PIP) install --quiet --no-deps --no-build-isolation --editable .
PROGRESS := sed -n -e 's/^Collecting \([^ ;]*\).*/  \1/p' -e 's/^Installing.*/  installing/p'
UV := uv==0.13.9
# One file for every Python from 3.11 on. What is locked stays unless it must not, or UPGRADE says so.
LOCK = build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command "make lock" $(UPGRADE)
PROTOS := common access_log access_log_context access_log_fields access_log_heads process profiling

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

# Everything is installed as it is locked, hash by hash, and then the project without dependencies.
$(READY): pyproject.toml $(LOCKS)/build.txt $(LOCKS)/run.txt
	@test -n "$(PYTHON)" || { echo "framewalk needs Python 3.11 or newer; name it: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON) (once, a minute or two)"
	@$(PYTHON) -m venv --clear $(VENV)
	@set -o pipefail; $(LOCKED) -r $(LOCKS)/build.txt -r $(LOCKS)/run.txt | $(PROGRESS)
	@$(PROJECT)
	@touch $@

$(DEV): $(READY) $(LOCKS)/dev.txt
	@echo "Adding the tools for tests, lint and benchmarks"
	@set -o pipefail; $(LOCKED) -r $(LOCKS)/dev.txt | $(PROGRESS)
	@touch $@

.PHONY: lock
lock: ## Lock what is installed: after a change in pyproject.toml, or with UPGRADE=--upgrade
	@$(PYTHON) -m venv build/uv
	@build/uv/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	@$(LOCK) --group build --output-file $(LOCKS)/build.txt
	@$(LOCK) pyproject.toml --output-file $(LOCKS)/run.txt
	@$(LOCK) pyproject.toml --extra kubernetes --constraint $(LOCKS)/run.txt --output-file $(LOCKS)/kubernetes.txt
	@$(LOCK) pyproject.toml --extra kubernetes --extra distributed --constraint $(LOCKS)/kubernetes.txt --output-file $(LOCKS)/distributed.txt
	@$(LOCK) pyproject.toml --extra kubernetes --extra mcp --extra distributed --group dev --constraint $(LOCKS)/distributed.txt --output-file $(LOCKS)/dev.txt

.PHONY: setup
setup: $(DEV) ## Make the virtual environment .venv

# kube-apiserver out of its Go modules (about 15 minutes of CPU, once), and Debian's etcd.
APISERVER := build/apiserver
$(APISERVER)/kube-apiserver: benchmarks/kubernetes/apiserver/go.mod
	@mkdir -p $(APISERVER)
	@cd benchmarks/kubernetes/apiserver && CGO_ENABLED=0 nice -n 10 go build -p 2 \
	  -ldflags "-s -w $$(sed -n 's/.*k8s.io\/kubernetes v\(1\)\.\([0-9]*\)\.\(.*\)/-X k8s.io\/component-base\/version.gitVersion=v\1.\2.\3 -X k8s.io\/component-base\/version.gitMajor=\1 -X k8s.io\/component-base\/version.gitMinor=\2/p' go.mod)" \
	  -o ../../../$@ k8s.io/kubernetes/cmd/kube-apiserver

$(APISERVER)/etcd:
	@mkdir -p $(APISERVER)/package
	@cd $(APISERVER)/package && apt-get download etcd-server && dpkg-deb --extract etcd-server_*.deb .
	@cp $(APISERVER)/package/usr/bin/etcd $@

.PHONY: apiserver
apiserver: $(APISERVER)/kube-apiserver $(APISERVER)/etcd ## Build a real API server for tests/test_apiserver.py

.PHONY: demo
demo: $(READY) ## Replay the bookinfo capture and show its service map
	@mkdir -p build && rm -f $(DEMO) $(DEMO).wal
	@$(BIN)/framewalk replay $(BOOKINFO) --entities $(BOOKINFO)/kubectl.yaml --store $(DEMO)
	@echo; echo "Who calls whom:"
	@$(BIN)/framewalk sql service_map --store $(DEMO) --format table
	@echo "The slowest endpoints:"
	@$(BIN)/framewalk sql slowest_endpoints --limit 10 --store $(DEMO) --format table
	@echo "Try next:"
	@echo "  $(BIN)/framewalk sql services --store $(DEMO)"
	@echo "  $(BIN)/framewalk sql 'FROM metrics' --store $(DEMO)"
	@echo "  $(BIN)/framewalk generate boutique --output build/boutique"
	@echo "  $(BIN)/framewalk --help"
	@echo "See it in a browser:"
	@echo "  $(BIN)/framewalk ui --store $(DEMO)"

.PHONY: test
test: lint types pytest ## Run lint, type checks and all tests

.PHONY: pytest
pytest: $(DEV) ## Run the tests only
	@$(BIN)/python -m pytest $(TOGETHER)

.PHONY: pytest-long
pytest-long: $(DEV) ## Run the long tests only: the same as others, with more of everything
	@$(BIN)/python -m pytest $(TOGETHER) -m long

.PHONY: golden
golden: $(DEV) ## Count how many answers are those that an OAP gave (tests/golden)
	@for protocol in mqe graphql promql; do \
	  PYTHONPATH=tests $(BIN)/python tests/$${protocol}_golden.py || exit 1; done

.PHONY: fuzz
fuzz: $(DEV) ## Ask 100,000 malformed and odd things in GraphQL, PromQL and MQE each: none may be a 500
	@for protocol in mqe promql graphql; do echo "$$protocol:"; \
	  PYTHONPATH=tests $(BIN)/python tests/$${protocol}_fuzz.py $(COUNT) || exit 1; done

.PHONY: lint
lint: $(DEV) ## Check style, formatting, and what may import what
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache --no-logo

.PHONY: types
types: $(DEV) ## Check types
	@mkdir -p build/types/framewalk
	@for folder in $(TYPED); do ln -sfn ../../../$$folder build/types/framewalk/$$folder; done
	@$(BIN)/mypy $(TYPED:%=-p framewalk.%)

# TypeScript, and the types of what others made of the page, in the versions that are kept.
TSC := build/tsc
$(TSC)/node_modules/typescript:
	@mkdir -p $(TSC)
	@npm install --prefix $(TSC) --silent --no-audit --no-fund --ignore-scripts typescript@5.9.3 \
	  $$(awk -F'"' '/^name/ {name = $$2} /^version/ {print name "@" $$2}' queries/page/web/vendor/VENDOR.toml)

.PHONY: page-types
page-types: $(DEV) $(TSC)/node_modules/typescript ## Check the types of the page, with TypeScript from npm
	@$(BIN)/python -m pytest -q tests/page/test_page_types.py

.PHONY: format
format: $(DEV) ## Format the code and mend what lint can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: wire
wire: $(DEV) ## Generate the Python code of engine/wire/*.proto
	@mkdir -p build/wire
	@$(BIN)/python -m grpc_tools.protoc --proto_path=framewalk/engine/wire=engine/wire \
	  --python_out=build/wire --pyi_out=build/wire $(PROTOS:%=framewalk/engine/wire/%.proto)
	@cp build/wire/framewalk/engine/wire/*_pb2.py* engine/wire/

.PHONY: reference
reference: $(READY) ## Make the pages of docs/reference from the tables of the language
	@$(BIN)/python -m framewalk.engine.explain.reference docs/reference

.PHONY: vendor
vendor: $(READY) ## Keep what others made of the page: after a change in VENDOR.toml (needs npm)
	@$(BIN)/python -m framewalk.queries.page.vendoring

.PHONY: screenshot
screenshot: $(DEV) ## Take the pictures of the page that the documentation shows (needs chromium)
	@FRAMEWALK_PICTURES=docs/images $(BIN)/python -m pytest --quiet -k picture_of_the_page tests/page

.PHONY: fixtures
fixtures: $(READY) ## Generate the committed captures again
	@$(BIN)/python -m framewalk.fixtures.committed

.PHONY: bench
bench: $(DEV) ## Measure everything (SIZE=large, medium or small), with ratios, as table and JSON
	@$(BIN)/python benchmarks/bench.py --size $(SIZE)

.PHONY: bench-small
bench-small: $(DEV) ## Run every benchmark once at a small size: does it still work?
	@$(BIN)/python benchmarks/bench.py --size small --together

.PHONY: bench-publish
bench-publish: $(DEV) ## Measure everything, large, and make docs/benchmarks.md of that one run
	@$(BIN)/python benchmarks/bench.py --size large --json build/bench/large.json
	@$(BIN)/python benchmarks/page.py build/bench/large.json

.PHONY: bench-compare
bench-compare: $(DEV) ## Compare two runs: make bench-compare A=benchmarks/results/large.json B=after.json
	@$(BIN)/python benchmarks/compare.py $(A) $(B)

.PHONY: memory
memory: $(DEV) ## Measure that memory does not grow with a capture's length, and stays within 1 GiB
	@$(BIN)/python benchmarks/memory.py

.PHONY: definitions
definitions: $(DEV) ## Measure what 426 definitions cost beside 40
	@$(BIN)/python benchmarks/definitions.py

.PHONY: archive-cost
archive-cost: $(DEV) ## Measure what an archive costs: bytes a log, CPU time beside none
	@$(BIN)/python benchmarks/archive_costs.py

.PHONY: ingress
ingress: $(DEV) ## Measure what a server needs per message, by transport
	@$(BIN)/python benchmarks/ingress.py

GO_SENDER := build/go_sender
$(GO_SENDER): $(wildcard benchmarks/go_sender/*)
	@mkdir -p build
	@cd benchmarks/go_sender && CGO_ENABLED=0 go build -o ../../$@ .

.PHONY: go-ingress
go-ingress: $(DEV) $(GO_SENDER) ## Measure the same with Rover's own gRPC library as the sender (needs go)
	@$(BIN)/python benchmarks/go_ingress.py $(GO_SENDER)

.PHONY: large
large: $(DEV) ## Measure a large cluster: 1,000 services, replay and live, and what its store takes
	@$(BIN)/python benchmarks/bench.py --size $(SIZE) --only large_cluster

LARGE_HOUR := build/large/hour.duckdb
$(LARGE_HOUR):
	@mkdir -p $(@D)
	@$(BIN)/python benchmarks/large_cluster.py store --output $@ --minutes 60 --variants 2

.PHONY: page-cost
page-cost: $(DEV) $(LARGE_HOUR) ## Measure the page over 1,000 services, in a browser (needs chromium)
	@$(BIN)/python benchmarks/page_in_browser.py $(LARGE_HOUR)

.PHONY: attacks
attacks: $(DEV) ## Measure what an honest sender notices while a receiver is attacked
	@$(BIN)/python benchmarks/attacks.py

.PHONY: live
live: $(DEV) ## Measure a server at 50,000 messages a second: CPU, memory, lag
	@$(BIN)/python benchmarks/live.py

.PHONY: idle
idle: $(DEV) ## Measure a server that has nothing to do, twice ten minutes
	@$(BIN)/python benchmarks/idle.py

.PHONY: query-soak
query-soak: $(DEV) ## Measure that 200,000 mixed queries leave a query server's memory flat
	@$(BIN)/python benchmarks/query_soak.py

.PHONY: queries-beside
queries-beside: $(DEV) ## Measure acknowledgements while a server answers heavy queries of each protocol
	@$(BIN)/python benchmarks/queries_beside.py

.PHONY: crash
crash: $(DEV) ## Kill both processes of a server 100 times while it receives
	@$(BIN)/python tests/receiver/crashing.py --kills 100

.PHONY: crash-hostile
crash-hostile: $(DEV) ## Kill both 300 times while it receives hostile and honest streams
	@$(BIN)/python tests/receiver/crashing.py --kills 300 --hostile

.PHONY: crash-sharing
crash-sharing: $(DEV) ## Kill engines that publish to one table, and its followers, 300 times
	@$(BIN)/python tests/receiver/crashing_sharing.py --kills 300

.PHONY: hostile
hostile: $(DEV) ## Send a server a million hostile messages, with honest streams between them
	@$(BIN)/python tests/receiver/hostile.py --messages 1000000 --seeds 1 2 3

.PHONY: mutants
mutants: $(DEV) ## Change 100 places of four rooms and list what no test notices (90 minutes at most)
	@nice $(BIN)/python tests/mutation/run.py

.PHONY: package
package: $(DEV) ## Build the wheel and try it in an environment of its own
	@rm -rf build/dist build/lib build/installed
	@$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir build/dist .
	@$(PYTHON) -m venv --without-pip build/installed
	@$(PIP) --python build/installed install --quiet --no-compile --require-hashes -r $(LOCKS)/run.txt
	@$(PIP) --python build/installed install --quiet --no-compile --no-deps build/dist/*.whl
	@cd build/installed && bin/framewalk generate bookinfo --duration 20 --output try \
	  && bin/framewalk replay try --entities try/kubectl.yaml --store try/store.duckdb >/dev/null \
	  && bin/framewalk sql service_map --store try/store.duckdb >/dev/null && echo "the wheel works"

.PHONY: clean
clean: ## Remove everything that can be made again
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
