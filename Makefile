# make run    the demonstration: AFTER against random selection, a learning curve and a report
# make test   everything that is checked: lint, types, tests
# make bench  speed against the usual ways of doing the same
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SITE := $(VENV)/lib/python3*/site-packages
export TOKENIZERS_PARALLELISM := false

.PHONY: run test lint install install-test bench clean

run: install
	$(BIN)/python simulate/run.py

test: install-test lint
	@# one thread a process: threads that wait for each other on busy cores are slower than none
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q --durations=10

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python -m benchmarks

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(VENV)/.installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@# torchaudio's compiled part wants CUDA's libraries; without it, its Python part works.
	$(BIN)/python -c "import torchaudio" 2>/dev/null || rm -f $(SITE)/torchaudio/lib/*.so
	$(BIN)/python -c "import torchaudio"
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt requirements-nodeps.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-nodeps.txt
	touch $@

clean:
	rm -rf $(VENV) runs
