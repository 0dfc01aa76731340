# Verbs: env, demo, test, check, docs, matrix, bench, fuzz. Each makes the environment first; it is quick once made.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := transformer_lens tests benchmarks demo fuzz hook_map matrix noxfile.py docs/conf.py

.DEFAULT_GOAL := help
.PHONY: help env demo test check lint types imports format docs docs-serve matrix bench fuzz clean

help: ## lists the verbs
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

env: $(STAMP) ## makes .venv with the pinned versions of constraints/dev.txt

$(STAMP): pyproject.toml constraints/dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints/dev.txt --editable '.[dev]'
	touch $@

demo: $(STAMP) ## loads a real small model in every mode, side by side, and draws its logit lens
	$(BIN)/python -m demo

test: $(STAMP) ## runs every test, on a few cores side by side
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

check: lint types imports test ## what CI runs: format, lint, types, import directions, tests

lint: $(STAMP)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

format: $(STAMP) ## formats the code and fixes what ruff can fix
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints/dev.txt --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs ## builds the documentation into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html

docs-serve: docs ## builds the documentation and serves it on this machine; PORT=8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory docs/_build/html $(or $(PORT),8000)

matrix: $(STAMP) ## runs the tests on every torch of constraints/matrix.toml; CELLS="torch-2.0.1 newest", QUICK=1, REMOVE=1
	$(BIN)/python -m matrix $(if $(QUICK),--quick) $(if $(REMOVE),--remove) $(CELLS)

bench: $(STAMP) ## times and weighs loading, ours and others' and the limits; ARGS=--full for every size
	$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(STAMP) ## fuzzes the readers of strangers' files, five minutes a target
	$(BIN)/python -m pip install --quiet --constraint constraints/dev.txt --editable '.[fuzz]'
	for target in safetensors bin pickle gguf json adapter; do $(BIN)/python -m fuzz.targets $$target --seconds 300 || exit 1; done

clean: ## removes the environment and every cache
	rm -rf $(VENV) docs/_build docs/generated .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
