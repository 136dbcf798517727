# make demo   all set-up, then the main job on the bundled model, into a run directory of its own
# make test   all set-up, then every check and test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat infra/setup.sh infra/locks/cpu.txt pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: demo test test-fast lint setup clean benchmark

setup: $(STAMP)

$(STAMP):
	@PYTHON="$(PYTHON)" bash infra/setup.sh $(VENV)
	@touch $@

demo: setup
	@$(BIN)/ponder run jobs/examples/arithmetic.yaml --output runs/demo-$$(date +%Y%m%d-%H%M%S)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# No engine, no cluster: pure rooms, stores and parsers.
test-fast: setup
	$(BIN)/pytest -q -m "not slow and not ray" tests

test: lint
	$(BIN)/pytest -q --durations=15 tests

clean:
	rm -rf $(VENV) runs
