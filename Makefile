# Two commands set up all that they need: `make run` and `make test`.

VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
STAMP = $(VENV)/.ready
DEV_STAMP = $(VENV)/.ready-dev

.PHONY: help run setup test browser node check bench nightly lock clean

help:
	@echo "make run      set up and start the server on port 5005 (with the simulator while there is no account)"
	@echo "make setup    only set up what the server needs"
	@echo "make test     set up what the suite needs and pass it"
	@echo "make browser  install Chromium for the tests of pages, where that is allowed"
	@echo "make node     install the clients from npm that the suite runs, where there is Node"
	@echo "make check    set up the same and run ruff, mypy --strict and import-linter"
	@echo "make bench    measure on this machine, as ratios in one run"
	@echo "make nightly  the long runs: kills, cancels, cuts, soak, fuzz, timing of the promised limits"
	@echo "make lock     write the hashed requirements anew"
	@echo "make clean    remove what the others made, but not the data folder"

run: setup
	@exec $(BIN)/python -m chat2api serve --demo

setup: $(STAMP)

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "There is no $(PYTHON) here. Install Python 3.11 or later, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "chat2api needs Python 3.11 or later; this is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing. Install it with: sudo apt-get install -y python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The package goes in by a second step, since hashed requirements refuse local folders. Its native part is optional:
# without a compiler or Python's headers the search for proofs of work runs in Python.
$(STAMP): $(VENV)/bin/python requirements.txt requirements-build.txt pyproject.toml setup.py \
  chat2api/protocol/chatgpt/_pow.c chat2api/protocol/chatgpt/_pow_lanes.h
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  { echo "$(VENV) is only half made. Remove it with: make clean"; exit 1; }
	@echo "Installing the pinned requirements …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt -r requirements-build.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'from chat2api.protocol.chatgpt import proof_of_work as p; print("Proof of work:", p.describe())'
	@test -n "$$(ls chat2api/protocol/chatgpt/_pow*.so 2>/dev/null)" || \
	  echo "It works, some five times slower. For the native search: sudo apt-get install -y gcc python3-dev, then make setup"
	@touch $@

# Who installs a compiler later and asks for it gets the native part.
ifeq ($(filter setup,$(MAKECMDGOALS))$(wildcard chat2api/protocol/chatgpt/_pow*.so),setup)
$(STAMP): FORCE
FORCE:
endif

$(DEV_STAMP): $(STAMP) requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

# A file's tests stay in one process, since they share servers. What measures time is left for the end, alone.
# What is compiled is kept, whatever the environment says: the suite starts Python a hundred times.
test nightly: export PYTHONDONTWRITEBYTECODE =

test: $(DEV_STAMP) browser node
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not nightly and not alone"
	$(BIN)/python -m pytest -m "alone and not nightly" $$(grep -rl --include='test_*.py' 'pytest\.mark\.alone' tests)

# The tests of pages need a Chromium of the system. Without one they are skipped, which is said.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { echo "Installing Chromium for the tests of pages …"; \
	    if [ "$$(id -u)" = 0 ]; then apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	    else sudo -n apt-get install -y -qq --no-install-recommends chromium >/dev/null; fi; } 2>/dev/null || \
	  echo "There is no Chromium, so the tests of pages are skipped. Install it with: sudo apt-get install -y chromium"

# The clients from npm are installed once for each lock. Without Node their tests are skipped, which is said; where
# CHAT2API_NEEDS_NODE is set, Node is installed from the system's packages.
NODE = tests/node
node:
	@cmp -s $(NODE)/package-lock.json $(NODE)/node_modules/.installed-lock || { \
	  command -v npm >/dev/null || [ -z "$(CHAT2API_NEEDS_NODE)" ] || { echo "Installing Node …"; \
	    $$([ "$$(id -u)" = 0 ] || echo sudo -n) apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null; }; \
	  command -v npm >/dev/null && { echo "Installing the clients from npm …"; \
	    npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --prefer-offline --fetch-retries=1 --fetch-timeout=60000 --loglevel=error >/dev/null && \
	    cp $(NODE)/package-lock.json $(NODE)/node_modules/.installed-lock; }; } || \
	  echo "The clients from npm could not be installed, so their tests are skipped. They need: sudo apt-get install -y nodejs npm"

check: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks

# The tests of properties are run once more, with cases that nobody has tried before.
# SOAK_SECONDS (600) and FUZZ_SECONDS (120) say how long the longest of them last.
nightly: $(DEV_STAMP)
	$(BIN)/python -m pytest -m "nightly or hypothesis" --hypothesis-profile new --timeout 3600

lock:
	@command -v uv >/dev/null || { echo "uv is needed to write the lock files: pip install uv"; exit 1; }
	for part in requirements requirements-build requirements-dev; do \
	  uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --exclude-newer "7 days" \
	    --no-header --no-annotate $$part.in -o $$part.txt || exit 1; done

clean:
	rm -rf $(VENV) $(NODE)/node_modules build *.egg-info chat2api/protocol/chatgpt/*.so
