# DrQueue. `make demo` and `make test` need python3 (3.11 or newer) with its venv module, and nothing else:
# the packages go into .venv, which is made when it is missing and brought up to date when pyproject.toml changes.

PYTHON ?= python3
ARGS ?=
# Tests run side by side, as many as there are cores; 0: in one process.
JOBS ?= auto
SEEDS ?= 500
SECONDS ?= 60
LEVEL ?= ci
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak sim fuzz faults mutants clean
.DELETE_ON_ERROR:

help:
	@echo "make demo     render an animation with a master and two slaves on this machine"
	@echo "make test     run every test but the faults"
	@echo "make check    formatting, lints, types, layers and documents, in under a minute"
	@echo "make sim      simulated farms with accidents; SEEDS=500 of them"
	@echo "make fuzz     damaged inputs for all that reads bytes; SECONDS=60 for each of them"
	@echo "make faults   real daemons killed, cut off, starved and stopped; LEVEL=ci, nightly or release"
	@echo "make mutants  bugs planted one by one, and which layer of tests notices"
	@echo "make soak     a farm at work for an hour, and what grows meanwhile"
	@echo "make bench    measure this machine and the farm on it"
	@echo "make clean    remove .venv, caches and what the bench built (pictures stay)"
	@echo "ARGS=... is handed to the program (make demo ARGS=\"--renderer povray\"); PYTHON=... names the python to use"

demo: .venv/.installed
	@$(BIN)/drqueue demo $(ARGS)

# Compiled first: farms and commands are hundreds of processes, and where python may not keep what it compiles
# (PYTHONDONTWRITEBYTECODE, as in many containers) each of them would compile everything anew.
test: .venv/.installed-dev
	@$(BIN)/python -m compileall -q -j 0 drqueue tests
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --ignore-glob='tests/faults/test_f*_*.py' $(ARGS)

check: .venv/.installed-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -m "not slow" tests/test_layers.py $(wildcard tests/test_docs.py)

sim: .venv/.installed-dev
	@$(BIN)/python -m tests.sim --seeds $(SEEDS)

fuzz: .venv/.installed-dev
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

faults: .venv/.installed-dev
	@$(BIN)/python -m tests.faults --level $(LEVEL) $(ARGS)

mutants: .venv/.installed-dev
	@$(BIN)/python -m tests.mutants $(ARGS)

soak: .venv/.installed
	@$(BIN)/python -m bench soak $(ARGS)

bench: .venv/.installed
	@$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache bench/out build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What `make demo` needs is little and quickly there; the tools for tests and checks come when they are asked for.
.venv/.installed: pyproject.toml
	@$(call install,.)

.venv/.installed-dev: pyproject.toml .venv/.installed
	@$(call install,.[dev])

# uv where there is one, else pip: the same packages, sooner. A .venv that does not start (half made, moved,
# its python upgraded away) is made anew.
define install
set -e; \
if ! command -v $(PYTHON) >/dev/null 2>&1; then \
	echo "There is no $(PYTHON) here: install Python 3.11 or newer, or name one with make PYTHON=/path/to/python3." >&2; exit 1; \
fi; \
if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	echo "DrQueue needs Python 3.11 or newer, and $(PYTHON) is `$(PYTHON) -c 'import platform; print(platform.python_version())'`: install a newer one, or name it with make PYTHON=/path/to/python3." >&2; exit 1; \
fi; \
uv=`command -v uv || true`; \
if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ test -z "$$uv" && ! $(BIN)/python -c 'import pip' 2>/dev/null; }; then \
	rm -rf .venv; \
	if test -n "$$uv"; then \
		echo "Making .venv"; uv venv --quiet --python "`command -v $(PYTHON)`" .venv; \
	elif $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "Making .venv"; $(PYTHON) -m venv .venv; \
	else \
		echo "$(PYTHON) cannot make virtual environments here: install its venv module (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; \
	fi; \
fi; \
echo "Installing $(1) into .venv"; \
if test -n "$$uv"; then \
	uv pip install --quiet --python $(BIN)/python --editable "$(1)"; \
else \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --editable "$(1)"; \
fi || { echo "The packages could not be installed (the lines above say why); when that is mended, run make again." >&2; exit 1; }; \
touch $@
endef
