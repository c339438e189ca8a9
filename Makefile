PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install metaworld train test check-all kills soak lint clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

# Meta-World needs an older MuJoCo than the other simulators, and so an environment of its own, with its own metarl.
metaworld: .venv-metaworld/installed

.venv-metaworld/installed: pyproject.toml constraints-metaworld.txt
	$(PYTHON) -m venv .venv-metaworld
	.venv-metaworld/bin/python -m pip install -c constraints-metaworld.txt -e . metaworld psutil pytest
	touch $@

# Meta-trains on 2-D navigation and ends with a table of how it adapts; each call makes a new run in runs/.
train: install
	$(BIN)/metarl train navigation

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# What takes too long for every change: three seeds of the shipped configuration, many damaged and killed runs.
check-all: install
	$(BIN)/python -m pytest -m "full or not full"

# Kills so many runs at moments of their own, and lets each go on; longer than what check-all does.
KILLS := 500
kills: install
	OMP_NUM_THREADS=1 PYTHONPATH=tests/support $(BIN)/python tests/support/survival/kills.py --kills $(KILLS)

# Trains, saves, loads and adapts for so many minutes in one process, in which nothing may pile up.
MINUTES := 120
soak: install
	OMP_NUM_THREADS=1 PYTHONPATH=tests/support $(BIN)/python -W ignore tests/support/survival/soak.py --minutes $(MINUTES)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .venv-metaworld build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
