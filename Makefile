# make demo        the whole story on this machine, as root; KEEP=1 leaves it running, make demo-clean ends it
# make test        linters, types, and all tests; what needs root is skipped without it
# make test-full   the same, and the exhaustive tests; SLICE=k/n runs the k-th of n parts of the exhaustive ones alone
# make attack      every known attack on real machines, as root; a table, build/attacks.json, and exit code 1 for a surprise
# make bench       build/bench.json; ONLY=name,... for some figures
# make lint        linters and types only

MAKEFLAGS += --no-print-directory
BIN := .venv/bin
ROOT := $(filter 0,$(shell id -u))
FOR_TESTS := $(if $(ROOT),tests,venv)
# The quick ones first; the simulations take every core by themselves, of the others a file at a time takes each.
QUICK := $(wildcard tests/unit tests/sim)
OTHERS := $(wildcard tests/functional tests/integration)
AT_A_TIME := 2
PYTEST := $(BIN)/python -m pytest --durations=20

.PHONY: attack demo demo-clean test test-full bench lint clean

demo:
	@scripts/setup host
	@$(BIN)/python -m examples.demo $(if $(KEEP),--keep)

demo-clean:
	@scripts/setup host
	@$(BIN)/python -m examples.demo --clean

lint:
	@scripts/setup venv
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	@scripts/setup $(FOR_TESTS)
	$(PYTEST) $(QUICK)
	$(PYTEST) --numprocesses=$(AT_A_TIME) --dist=loadfile $(OTHERS)

test-full: export IMMUTABLE_FULL = 1
test-full: FOR_TESTS = $(if $(ROOT),full,venv)
# What is pruned depends on what other estates of this host have mounted.
test-full: AT_A_TIME = 1
ifdef SLICE
test-full: export IMMUTABLE_SLICE = $(SLICE)
test-full:
	@scripts/setup $(FOR_TESTS)
	$(PYTEST) $(QUICK) $(OTHERS)
else
test-full: test
endif

attack:
	@scripts/setup tests
	@$(BIN)/python -m tests.attack

bench:
	@scripts/setup host
	@$(BIN)/python -m tests.bench $(ONLY)

clean: demo-clean
	rm -rf .demo .venv build
