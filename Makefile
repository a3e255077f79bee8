# The two commands of the README are `make demo` and `make test`; they need Python 3.11 or later and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
BUDGET ?= 120

.DEFAULT_GOAL := help
.PHONY: help demo test check equivalence test-slow campaign lint docs bench bench-quick peers references clean

help:
	@echo "make demo       install, run the quick voltage forecast, end with a table and report.html"
	@echo "make test       install, run the fast test suite"
	@echo "make check      what differs from main: rules, format, types, and the tests it reaches, in two minutes"
	@echo "make equivalence  compare every model with PyTorch, and keep the table in docs/equivalence.md"
	@echo "make test-slow  the slow checks too"
	@echo "make campaign   kill, fill, damage and mutate everything for hours; the rows of docs/reliability.md"
	@echo "make lint       ruff and pyright"
	@echo "make docs       build the documentation into docs/_build/html"
	@echo "make bench-quick  time a part of everything in four minutes, with a report in benchmarks/results/quick"
	@echo "make bench      time everything beside every peer, which takes hours and can be stopped and continued"
	@echo "make peers      install the simulators to compare with, each into an environment of its own"
	@echo "make references make tests/reference anew with them"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('jneuro needs Python 3.11 or later' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.test: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/jneuro run configs/quick/voltage_forecast.yaml --resume

test: $(VENV)/.test
	$(BIN)/pytest -n $(JOBS)

check: $(VENV)/.dev
	$(BIN)/python scripts/check.py --jobs $(JOBS) --budget $(BUDGET)

equivalence: $(VENV)/.test
	$(BIN)/python scripts/equivalence.py

test-slow: $(VENV)/.test
	$(BIN)/pytest -n $(JOBS) -m slow

SEED ?= 1
campaign: $(VENV)/.test
	$(BIN)/python -m tests.campaigns fuzz --count 10000 --seed $(SEED)
	$(BIN)/python -m tests.campaigns begun --count 200 --seed $(SEED)
	$(BIN)/python -m tests.campaigns damage --count 2000 --seed $(SEED)
	$(BIN)/python -m tests.campaigns kills --count 200 --seed $(SEED)
	$(BIN)/python -m tests.campaigns full --count 50 --seed $(SEED)
	$(BIN)/python -m tests.campaigns beside --count 50 --seed $(SEED)
	$(BIN)/python -m tests.campaigns foreign --count 1000 --seed $(SEED)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

bench: $(VENV)/.test peers
	$(BIN)/jneuro bench

bench-quick: $(VENV)/.test
	$(BIN)/jneuro bench --quick

PEERS := scipy brian2 neuron nest jaxley keras pytorch_forecasting spikes
peers: $(PEERS:%=.peers/%/.installed)

# A peer that cannot be installed is named and left out.
.peers/%/.installed: benchmarks/peers/%.txt
	@$(PYTHON) -m venv $(@D) && $(@D)/bin/pip install --quiet --requirement $< && touch $@ \
	  || { rm -rf $(@D); echo "$*: could not be installed" >&2; }

references: peers
	$(PYTHON) scripts/make_reference_data.py

clean:
	rm -rf $(VENV) docs/_build
