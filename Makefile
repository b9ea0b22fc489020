# Every task of this project. `make` alone lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.kagimori-ready
PYTEST := $(BIN)/python -m pytest
# Two workers by default, also on a larger machine: soak and CI figures stay comparable.
JOBS ?= 2
# More for pytest: make test ARGS='-k rotation -x'
ARGS ?=

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

# Every extra of pyproject.toml that a test runs against.
ADAPTERS := --extra postgres --extra mysql --extra redis --extra azure --extra aws --extra gcp \
	--extra vault --extra pkcs11

.PHONY: help setup serve demo-swap test soak lint types layers coverage format bench lock wheel clean

help: ## list these tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make .venv with everything that is needed (PYTHON=/path/to/python3)

# The stamp is younger than what it was made from, so a second time costs nothing.
$(STAMP): requirements/dev.txt pyproject.toml scripts/find-python
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(sh scripts/find-python) || exit 1; \
	if ! $(BIN)/python -c '' 2>/dev/null; then \
		echo "Making $(VENV) with $$python"; "$$python" -m venv --clear $(VENV); \
	fi
	@echo "Installing what requirements/dev.txt pins"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --requirement requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@

serve: $(STAMP) ## run the server with a demo world (PORT=3000 DATA=./kagimori-data)
	@exec $(BIN)/kagimori serve --demo \
		$(if $(PORT),--listen localhost:$(PORT)) $(if $(DATA),--data '$(DATA)')

demo-swap: $(STAMP) ## show a slot swap with two key rings, and with one (ARGS='--lang ja')
	@exec $(BIN)/python -m demos.swap $(ARGS)

test: $(STAMP) ## run every test but the soak (ARGS='-k name')
	@rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m pytest -n $(JOBS) --dist worksteal -m 'not soak' $(ARGS)

soak: $(STAMP) ## run the full figures that are too long for `make test`
	KAGIMORI_HYPOTHESIS=soak $(PYTEST) -m soak $(ARGS)

coverage: $(STAMP) ## say what the last `make test` did not reach; fails below the floor
	@$(BIN)/coverage combine --keep --quiet build/coverage
	@$(BIN)/coverage report

lint: $(STAMP) ## check style and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## check types, strictly
	$(BIN)/mypy

layers: $(STAMP) ## check that imports point down
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## lay the code out
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure the figures of docs/performance.md (ARGS='jws refresh')
	$(BIN)/python -m bench $(ARGS)

lock: $(STAMP) ## pin the newest versions that pyproject.toml and dev.in allow
	$(LOCK) pyproject.toml --output-file requirements/dev.txt $(ADAPTERS) --extra server requirements/dev.in --upgrade
	$(LOCK) pyproject.toml --output-file requirements/server.txt --extra server --constraint requirements/dev.txt
	$(LOCK) pyproject.toml --output-file requirements/runtime.txt --constraint requirements/dev.txt

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/hatchling build --target wheel

clean: ## remove what was built; keeps .venv and your data
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
