# Every target prepares what it needs: a virtual environment in .venv, and Node's packages for the tests with JavaScript
# clients. A machine needs Python >= 3.11 and make; for the tests also what `make tools` names. ARGS="…" is passed on,
# as in `make run ARGS="--port 9000"`.

# Debian installs nginx and PostgreSQL, and Go installs itself, where not every user's PATH leads.
POSTGRES := $(lastword $(sort $(wildcard /usr/lib/postgresql/*/bin)))
export PATH := $(PATH):/usr/sbin:/usr/local/go/bin$(addprefix :,$(POSTGRES))

# Tests start hundreds of processes. Without bytecode on disk, each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
SERVER := .venv/.server
DEV := .venv/.dev
JS := tests/conformance/js
JS_PACKAGES := $(JS)/node_modules/.installed
DRIVERS := tests/sdks/drivers
JS_DRIVER := $(DRIVERS)/js/node_modules/.installed
GO_DRIVER := $(DRIVERS)/go/build/driver
JAVA_DRIVER := $(DRIVERS)/java/target/.built
GUIDES := .venv/.guides
GUIDES_JS := tests/guides/js
GUIDES_JS_PACKAGES := $(GUIDES_JS)/node_modules/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=
# Many tests wait for servers and timers most of the time, so three processes keep two cores busy.
WORKERS ?= 3
EXAMPLES ?= 300
# Those that Tocsin supports. Names and paths of programs are both possible.
PYTHONS ?= python3.11 python3.12 python3.13

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(SERVER) ## the demo: a small application and its server
	$(BIN)/tocsin demo $(ARGS)

.PHONY: test
test: tools style $(JS_PACKAGES) ## check, and every test; types are checked beside the tests
	@$(MAKE) --no-print-directory --jobs 2 types every-test

.PHONY: every-test
every-test:
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

.PHONY: test-pythons
test-pythons: tools $(JS_PACKAGES) ## every test with each Python of PYTHONS="…"; those that the machine lacks are named
	@mkdir -p .venv/pythons
	@failed=; for python in $(PYTHONS); do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || \
			{ echo "This machine has no $$python."; continue; }; \
		echo "Every test with Python $$version …"; \
		$$python -m venv .venv/pythons/$$version && \
		.venv/pythons/$$version/bin/python -m pip --disable-pip-version-check --quiet install \
			--constraint constraints.txt --editable '.[server,dev]' && \
		.venv/pythons/$$version/bin/pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS) || failed="$$failed $$version"; \
	done; test -z "$$failed" || { echo "Tests failed with Python$$failed." >&2; exit 1; }

.PHONY: coverage
coverage: tools $(JS_PACKAGES) ## every test, and which lines no test runs; it takes half as long again
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered $(ARGS)

.PHONY: test-sdks
test-sdks: sdk-tools $(DEV) $(JS_DRIVER) $(GO_DRIVER) $(JAVA_DRIVER) ## the official SDKs against two nodes; writes docs/sdks.md
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal --page docs/sdks.md tests/sdks/scenarios.py $(ARGS)

.PHONY: test-guides
test-guides: guide-tools $(GUIDES) $(GUIDES_JS_PACKAGES) ## the applications of docs/integrate/, made and run as their pages say
	$(BIN)/pytest --numprocesses 2 --dist loadgroup tests/guides/scenarios.py $(ARGS)

.PHONY: check
check: style types ## format, lint, words, import contracts, types

.PHONY: style
style: $(DEV)
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/python -m tests.words
	$(BIN)/lint-imports

.PHONY: types
types: $(DEV)
	nice $(BIN)/mypy

.PHONY: words
words: $(DEV) ## find words that no file may use (tests/words.py)
	$(BIN)/python -m tests.words

.PHONY: format
format: $(DEV) ## format, and fix what ruff can fix
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format

.PHONY: bench
bench: $(DEV) ## the figures of docs/speed.md
	$(BIN)/python -m tests.bench $(ARGS)

.PHONY: fuzz
fuzz: $(DEV) ## the HTTP API against its OpenAPI document, with many requests (EXAMPLES=2000 for each method)
	TOCSIN_FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/pytest --numprocesses $(WORKERS) tests/conformance/test_schemathesis.py $(ARGS)

.PHONY: chaos
chaos: $(DEV) ## every fault under load (docs/faults.md); exit 1 if a promise is broken
	$(BIN)/python -m tests.faults $(ARGS)

.PHONY: hostile
hostile: $(DEV) ## every attack beside honest clients (docs/security.md); exit 1 if a promise is broken
	$(BIN)/python -m tests.hostile $(ARGS)

.PHONY: clean
clean: ## remove everything that make made
	rm -rf .venv $(JS)/node_modules $(GUIDES_JS)/node_modules $(DRIVERS)/js/node_modules $(DRIVERS)/go/build $(DRIVERS)/java/target dist build htmlcov .coverage .coverage.* \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find server client tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up ------------------------------------------------------------------------------------------------------------

$(SERVER): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Tocsin needs Python 3.11 or later, and finds none on the PATH." >&2; exit 1; }
	@echo "Preparing .venv with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv .venv || { echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) install --constraint constraints.txt --editable '.[server]'
	@touch $@

$(DEV): $(SERVER)
	@$(PIP) install --constraint constraints.txt --editable '.[server,dev]'
	@touch $@

$(GUIDES): $(DEV)
	@$(PIP) install --constraint constraints.txt --editable '.[server,dev,guides]'
	@touch $@

$(GUIDES_JS_PACKAGES): $(GUIDES_JS)/package-lock.json $(GUIDES_JS)/package.json | guide-tools
	@cd $(GUIDES_JS) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(JS_PACKAGES): $(JS)/package.json | tools
	@cd $(JS) && ./install
	@touch $@

$(JS_DRIVER): $(DRIVERS)/js/package-lock.json $(DRIVERS)/js/package.json | sdk-tools
	@cd $(DRIVERS)/js && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(GO_DRIVER): $(wildcard $(DRIVERS)/go/*.go) $(DRIVERS)/go/go.mod $(DRIVERS)/go/go.sum | sdk-tools
	@echo "Building the driver of the Go SDK …"
	@cd $(DRIVERS)/go && go build -buildvcs=false -o build/driver .

$(JAVA_DRIVER): $(wildcard $(DRIVERS)/java/src/main/java/*.java) $(DRIVERS)/java/pom.xml | sdk-tools
	@echo "Building the driver of the Java SDK …"
	@cd $(DRIVERS)/java && mvn --quiet --batch-mode -Dstyle.color=never compile \
		dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=target/lib
	@touch $@

# Programs that the tests need and pip cannot install: a Debian package, then its programs, of which one is enough.
.PHONY: tools
tools:
	@missing=; need() { package=$$1; shift; \
		for program; do command -v $$program >/dev/null && return; done; missing="$$missing $$package"; }; \
	node -e 'process.exit(+(parseInt(process.versions.node) < 20))' 2>/dev/null || missing=" nodejs"; \
	need npm npm; need chromium chromium chromium-browser google-chrome; need nginx-light nginx; \
	need redis-server redis-server; need faketime faketime; need curl curl; \
	need postgresql initdb; \
	test -z "$$missing" || { echo "The tests need further programs (and Node.js 20 or later). On Debian:" >&2; \
		echo "apt-get install --no-install-recommends$$missing" >&2; exit 1; }

# Those that the tests of SDKs need. Go 1.21 and later get the Go that go.mod requires by themselves, older ones do not.
.PHONY: sdk-tools
sdk-tools:
	@missing=; need() { command -v $$2 >/dev/null || missing="$$missing $$1"; }; \
	need nodejs node; need npm npm; need redis-server redis-server; \
	need golang-go go; need default-jdk-headless javac; need maven mvn; \
	test -z "$$missing" || { echo "The tests of SDKs need further programs. On Debian:" >&2; \
		echo "apt-get install --no-install-recommends$$missing" >&2; exit 1; }
	@go version | awk '{ sub(/^go/, "", $$3); split($$3, v, "."); exit v[1] == 1 && v[2] < 21 }' || \
		{ echo "The tests of SDKs need Go 1.21 or later, and this is $$(go version)." >&2; exit 1; }

# Those that the tests of docs/integrate/ need. PHP's SQLite is a package of its own.
.PHONY: guide-tools
guide-tools:
	@missing=; need() { package=$$1; shift; \
		for program; do command -v $$program >/dev/null && return; done; missing="$$missing $$package"; }; \
	node -e 'process.exit(+(parseInt(process.versions.node) < 20))' 2>/dev/null || missing=" nodejs"; \
	need npm npm; need chromium chromium chromium-browser google-chrome; need openssl openssl; need php-cli php; \
	php -r 'exit((int) !extension_loaded("pdo_sqlite"));' 2>/dev/null || missing="$$missing php-sqlite3"; \
	test -z "$$missing" || { echo "The tests of guides need further programs (and Node.js 20 or later). On Debian:" >&2; \
		echo "apt-get install --no-install-recommends$$missing" >&2; exit 1; }
