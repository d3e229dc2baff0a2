# Everything starts here. `make help` lists the targets; all of them set up what they need by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help demo test lint fmt bench bench-docs chaos fuzz ledger docs clean console

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(RUN_STAMP) ## start Mooring with 25 simulated devices and open updates
	@$(BIN)/mooring demo

test: $(DEV_STAMP) ## run all tests, three at a time since most wait (installs the servers they talk to when apt is there)
	sh tests/install_servers.sh
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)
	$(BIN)/python build_console.py --test

lint: $(DEV_STAMP) ## ruff, mypy --strict, import contracts, the console's types and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python build_console.py --check

fmt: $(DEV_STAMP) ## format and sort
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python build_console.py --fmt

bench: $(DEV_STAMP) ## the benchmarks, peers in the same run
	sh tests/install_servers.sh
	$(BIN)/python -m benchmarks

fuzz: $(DEV_STAMP) ## the models of the broker and every parser at length, then two million damaged packets (ARGS="--seconds 600 --seeds 7 8 9")
	MODEL_DEPTH=10 $(BIN)/python -m pytest -q --timeout=900 tests/broker/test_native_inbound_model.py tests/broker/test_native_broker_model.py
	FUZZ_EXAMPLES=100000 $(BIN)/python -m pytest -q -n 2 --timeout=7200 tests/fuzz/test_parsers.py
	$(BIN)/python -m tests.fuzz $(ARGS)

chaos: $(DEV_STAMP) ## kill, overload and starve a server for a quarter of an hour (the tests do it for a minute)
	sh tests/install_servers.sh
	CHAOS_SECONDS=60 CHAOS_ROUNDS=100 CHAOS_KILLS=30 CHAOS_FLIPS=5000 $(BIN)/python -m pytest --timeout=1800 tests/chaos \
		tests/e2e/test_overload.py tests/e2e/test_kill.py tests/gateway/test_journal_damage.py tests/gateway/test_journal_faults.py

ledger: $(DEV_STAMP) ## an hour of kills, bad disks, networks and clocks; then every message is accounted for
	sh tests/install_servers.sh
	LEDGER_SECONDS=3600 $(BIN)/python -m pytest -q -s --timeout=10800 tests/chaos/test_hour.py

bench-docs: $(DEV_STAMP) ## measure all and write docs/benchmarks.md and its pictures again (forty quiet minutes)
	sh tests/install_servers.sh
	$(BIN)/python -m benchmarks broker scaling ingest ingest-scaling stores store-size --docs

docs: $(DEV_STAMP) ## write the generated parts of docs/ again (settings, state diagrams, pictures)
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/screenshots.py

console: $(RUN_STAMP) ## build the console into web/console_dist
	$(BIN)/python build_console.py

clean: ## remove the virtual environment and everything built
	rm -rf $(VENV) web/console_dist web/console/node_modules tests/broker/judges/node_modules .mypy_cache .ruff_cache .pytest_cache

# The console is built on its own (build_console.py skips what is up to date), so pip need not do it too.
$(RUN_STAMP): pyproject.toml constraints.txt
	@echo "installing Mooring into $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@MOORING_SKIP_CONSOLE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@$(BIN)/python build_console.py
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt
	@echo "installing Mooring and what its tests need into $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	@MOORING_SKIP_CONSOLE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[postgres]' --group dev
	@$(BIN)/python build_console.py
	@touch $@ $(RUN_STAMP)
