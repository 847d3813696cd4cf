# Every command of a checkout. Each target does its own set-up, once: .make/ has a stamp for each part. To add a Python
# package, add it to pyproject.toml and run `make lock`.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
MINUTES ?= 60 # of make soak
JOBS ?= $(shell expr 2 '*' $$(nproc)) # processes that run tests: more than cores, as many tests wait for time to pass
WAITING_JOBS ?= $(shell expr 7 '*' $(JOBS) / 4) # for those without coverage, which wait most of the time
COVERAGE_MIN ?= 95 # percent of lines and branches that the tests must reach

BIN := .venv/bin
# A stamp is out of date also if its product was deleted.
VENV_GONE := $(if $(wildcard $(BIN)/python),,gone)
YJS := examples/editor/page/yjs.js
WEB_GONE := $(if $(and $(wildcard scripts/web/node_modules/.package-lock.json),$(wildcard $(YJS))),,gone)
PEERS_GONE := $(if $(wildcard tests/peers/node_modules/.package-lock.json),,gone)

.DEFAULT_GOAL := help
.NOTPARALLEL:
# The tests start hundreds of processes: where this is set, each of them and each of pytest's compiles every module again.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help serve quick test proof soak screenshots fuzz docs web dist release check format lock clean system brokers gone

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16
	@echo 'Variables: PYTHON=$(PYTHON) HOST=$(HOST) PORT=$(PORT) JOBS=$(JOBS) MINUTES=$(MINUTES)'

serve: .make/runtime ## Serve on HOST and PORT, for development
	$(BIN)/oncecast serve --dev --host $(HOST) --port $(PORT)

quick: .make/dev ## Run the tests that need no browser, npm or broker's server and are not slow (a minute and a quarter on two cores)
	$(BIN)/pytest --quiet -n $(JOBS) --dist worksteal -m 'not (browser or npm or servers or slow)'

test: .make/dev .make/docs .make/web .make/peers | brokers ## Run all the tests, most of them under coverage
	@$(BIN)/coverage erase
	@rm -f .pytest_cache/v/cache/lastfailed
	$(BIN)/coverage run -m pytest -n $(JOBS) --dist worksteal -m 'not bare' || $(BIN)/python -m tests.again $$?
	$(BIN)/pytest -n $(WAITING_JOBS) --dist worksteal -m bare || $(BIN)/python -m tests.again $$?
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=$(COVERAGE_MIN)

proof: .make/dev | system ## Run the longer proofs: 500 seeded runs of a client, the obstacles of all three, without tokens and with tokens that end, thirty-five minutes of nonsense, 2,000 slow peers, 200 crashes, 50 schedules of faults of each broker, every clause through each proxy, two minutes of the soak (an hour and forty minutes)
	$(BIN)/python -m tests.proof.client_runs --runs 500
	$(BIN)/python -m tests.proof.client_matrix
	$(BIN)/python -m tests.proof.client_matrix --life 10
	$(BIN)/python -m tests.proof.wire_fuzz --minutes 10
	$(BIN)/python -m tests.proof.wire_fuzz --minutes 10 --guarded
	$(BIN)/python -m tests.proof.wire_fuzz --minutes 10 --tls
	$(BIN)/python -m tests.proof.openapi_fuzz --seconds 300
	$(BIN)/python -m tests.proof.crashes --kills 200 --pauses 20 --wipes 10 --rolls 20
	$(BIN)/python -m tests.proof.broker_faults --broker redis --schedules 50
	$(BIN)/python -m tests.proof.broker_faults --broker nats --schedules 50
	$(BIN)/python -m tests.proof.broker_faults --broker rabbitmq --schedules 50
	$(BIN)/python -m tests.proof.broker_faults --broker kafka --schedules 50
	$(BIN)/python -m tests.proof.slow_peers --peers 2000
	$(BIN)/python -m tests.proof.tabs
	$(BIN)/python -m tests.proof.proxies
	$(BIN)/python -m tests.proof.soak --minutes 2 --subscribers 300

soak: .make/dev | system ## Run three nodes on Redis behind HAProxy for MINUTES, with 3,000 subscribers, restarts and a failover
	@scripts/brokers install redis
	$(BIN)/python -m tests.proof.soak --minutes $(MINUTES)

screenshots: .make/dev | system ## Make the pictures of the docs again
	$(BIN)/python -m scripts.screenshots

fuzz: .make/fuzz ## Fuzz each parser for a minute (RUNS=N for N inputs each)
	$(BIN)/python -m tests.fuzz $(if $(RUNS),--runs $(RUNS))

docs: .make/docs ## Build the docs as a site into build/site; a warning or a link that leads nowhere fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # not --quiet, which would not see warnings; the variable hides Material's own notice
	@echo 'To read it: $(BIN)/python -m http.server --bind $(HOST) --directory build/site'

web: .make/web ## Bundle the JavaScript client into build/web/oncecast.js, as a release serves it, and Yjs for an example
	npm run --silent --prefix scripts/web build

dist: .make/dev .make/web ## Build the sdist and the wheel into dist
	$(BIN)/python -c 'from hatchling.build import build_sdist, build_wheel; build_sdist("dist"); build_wheel("dist")'

release: .make/release | system ## Build a release from a clone of this commit and try it (UPLOAD=1 to upload it too)
	$(BIN)/python scripts/release.py $(if $(UPLOAD),--upload)

check: .make/dev ## Check format, lint, types, the import rule and the installed versions
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest --quiet tests/test_imports.py
	$(BIN)/python -m pip --disable-pip-version-check check

format: .make/dev ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: .make/runtime ## Pin the newest versions that pyproject.toml allows
	$(BIN)/python scripts/lock.py

clean: ## Remove everything that make has made
	rm -rf .make .venv .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	rm -rf tests/peers/node_modules scripts/web/node_modules $(YJS)
	find . -name __pycache__ -prune -exec rm -rf {} +

brokers: .make/dev # the brokers' real servers; the tests of a missing one are skipped by name, except in CI
	@scripts/brokers install || [ -z "$$CI" ]

system: # Debian's packages; checked each time, as the check is cheap
	@scripts/system-packages

.make/runtime: pyproject.toml requirements/runtime.lock $(VENV_GONE)
	@scripts/install runtime '$(PYTHON)'

.make/dev: pyproject.toml requirements/runtime.lock requirements/dev.lock $(VENV_GONE)
	@scripts/install dev '$(PYTHON)'

.make/fuzz: .make/dev requirements/fuzz.lock
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes --requirement requirements/fuzz.lock
	@touch $@

.make/docs .make/release: .make/%: .make/dev requirements/%.lock
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes --requirement requirements/$*.lock
	@touch $@

.make/web: scripts/web/package.json scripts/web/package-lock.json scripts/web/yjs.mjs $(WEB_GONE) | system
	@rm -f $@ && mkdir -p $(@D)
	npm ci --prefix scripts/web --silent
	npm run --silent --prefix scripts/web yjs
	@touch $@

.make/peers: tests/peers/package.json tests/peers/package-lock.json $(PEERS_GONE) | system
	@rm -f $@ && mkdir -p $(@D)
	npm ci --prefix tests/peers --silent
	@touch $@
