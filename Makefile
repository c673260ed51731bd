# Two commands for a fresh machine with Python 3.10+ and make (Debian and Ubuntu: python3-venv too):
#   make demo     the whole chain on a small generated data set
#   make test     the tests
# and beside them
#   make install  the set-up alone, with the command .venv/bin/mocobench
#   make fuzz     ten thousand damaged checkpoints of every container
#   make perf     speed and memory, beside Detectron2 and Lightly where PERF_PYTHON has them;
#                 PERF_SECTIONS=input,reports for some of it
# Each sets up .venv first when it is not there.

PYTHON ?= python3
BIN := .venv/bin
PERF_PYTHON ?= $(BIN)/python

.PHONY: demo test install fuzz perf check format clean

demo: .venv/ready
	$(BIN)/mocobench demo --out demo

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

install: .venv/ready

fuzz: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m fuzz -s

perf: .venv/ready
	$(PERF_PYTHON) -m tests.perf --out docs/performance $(if $(PERF_SECTIONS),--sections $(PERF_SECTIONS))

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/ready: pyproject.toml constraints.txt
	@echo "setting up .venv: about 5 GB, a few minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
