# make run                 Label Studio and AFTER on this machine, with generated speech to label
# make run AUDIO=folder    the same with your own recordings; OPTIONS="..." is passed on
# make demo                a simulation: AFTER against random selection, a curve and a report
# make test                everything that is checked: lint, types, tests
# make test-image          runs the Dockerfile's steps in a clean root made by debootstrap (as root)
# make bench               speed against the usual ways of doing the same
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SITE := $(VENV)/lib/python3*/site-packages
PIP := -m pip install -qq --disable-pip-version-check --no-warn-conflicts
# Label Studio has an environment of its own; AFTER_LABEL_STUDIO_VENV names one that is there.
LABEL_STUDIO_VENV := $(or $(AFTER_LABEL_STUDIO_VENV),.venv-label-studio)
DATA ?= data
DEMO_AUDIO := $(DATA)/demo-audio
AUDIO ?=
OPTIONS ?=
export TOKENIZERS_PARALLELISM := false

.PHONY: run demo test pytest lint install install-test install-bench label-studio chromium bench test-image clean

run:
	@$(MAKE) --no-print-directory -j2 install label-studio
	$(if $(AUDIO),,@$(BIN)/python -m simulate.data.loaders.demo $(DEMO_AUDIO))
	@exec $(BIN)/python -m backend run --data "$(DATA)" --audio "$(or $(AUDIO),$(DEMO_AUDIO))" \
		--label-studio-venv "$(LABEL_STUDIO_VENV)" $(OPTIONS)

demo: install
	$(BIN)/python simulate/run.py

test:
	@$(MAKE) --no-print-directory -j2 install-test label-studio
	@$(MAKE) --no-print-directory chromium lint pytest

pytest: install-test
	@# One thread a process: threads that wait for each other on busy cores are slower than none.
	@# The tests with a Label Studio are one scope, which one process runs (tests/conftest.py).
	OMP_NUM_THREADS=1 AFTER_LABEL_STUDIO_VENV="$$(realpath $(LABEL_STUDIO_VENV))" $(BIN)/python -m pytest \
		-n 2 --dist loadscope --no-loadscope-reorder -q --durations=10

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install-bench
	$(BIN)/python -m benchmarks

test-image: install-test
	$(BIN)/python tests/image.py

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test
install-bench: $(VENV)/.installed-bench
label-studio: $(LABEL_STUDIO_VENV)/bin/label-studio

$(VENV)/.installed: requirements.txt requirements-nodeps.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what AFTER needs into $(VENV) (2 GB, some minutes) ..."
	@$(BIN)/python $(PIP) -r requirements.txt
	@$(BIN)/python $(PIP) --no-deps -r requirements-nodeps.txt
	@# torchaudio's compiled part wants CUDA's libraries; without it, its Python part works.
	@$(BIN)/python -c "import torchaudio" 2>/dev/null || rm -f $(SITE)/torchaudio/lib/*.so
	@$(BIN)/python -c "import torchaudio, label_studio_ml.model"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-export.txt requirements-data.txt requirements-test.txt requirements-test-nodeps.txt
	@$(BIN)/python $(PIP) -r requirements-test.txt
	@$(BIN)/python $(PIP) --no-deps -r requirements-test-nodeps.txt
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed requirements-export.txt requirements-bench.txt
	@$(BIN)/python $(PIP) -r requirements-bench.txt || \
		echo "requirements-bench.txt can't be installed: some rows will be left out"
	@touch $@

$(LABEL_STUDIO_VENV)/bin/label-studio: requirements-label-studio.txt
	test -x $(LABEL_STUDIO_VENV)/bin/python || $(PYTHON) -m venv $(LABEL_STUDIO_VENV)
	@echo "installing Label Studio into $(LABEL_STUDIO_VENV) (1 GB, 3 to 8 minutes) ..."
	@$(LABEL_STUDIO_VENV)/bin/python $(PIP) -r requirements-label-studio.txt
	@touch $@

chromium:  # for the tests that look at pages; without it they are skipped
	@if command -v chromium >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "installing chromium ..."; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
			>/dev/null 2>&1 || echo "chromium can't be installed: tests of pages are skipped"; \
	else echo "no chromium: tests of pages are skipped"; fi

clean:  # not $(DATA), which holds labels and models
	rm -rf $(VENV) .venv-label-studio .cache runs
