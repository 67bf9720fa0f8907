# Needs Python 3.11 or newer and make; everything else is installed into .venv, as uv.lock has it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9.-]+):[^#]*## /\1\t/' | expand -t 24

install: $(VENV)/.installed ## Install everything into .venv

$(VENV)/.installed: pyproject.toml uv.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --quiet --frozen --inexact --python $(BIN)/python
	@touch $@

demo: install ## The todos example, end to end, on a Postgres of its own
	@$(BIN)/python examples/todos/demo.py

test: install ## The whole test suite
	$(BIN)/pytest -n 4 --dist worksteal

test-long: install ## What takes minutes
	$(BIN)/pytest -m long

test-sqlalchemy-2.0: install ## What depends on SQLAlchemy, on one Postgres, with its newest 2.0
	UV_PROJECT_ENVIRONMENT=.venv-2.0 $(BIN)/uv sync --quiet --frozen --python $(BIN)/python
	$(BIN)/uv pip install --quiet --python .venv-2.0 'sqlalchemy[asyncio]<2.1'
	.venv-2.0/bin/pytest -n 4 --dist worksteal tests/postgres tests/unit/test_schema.py \
	  -k 'not (postgres15 or test_faults or test_standby or test_pgbouncer or test_policy_plans or test_testing_postgres or test_conformance or test_leftovers or test_seen_tokens or test_signed_functions or test_signing_key or test_signed_migrations or test_clean or test_strict or test_auth_functions or test_random_policies or test_open_moments or test_cli or test_recipes or test_ownership or test_grants or test_roles or test_revoke_from_public or test_openings or test_policy_meaning or test_signed or test_fastapi or test_comparing or test_functions_and_tables or test_login_roles or test_forced or test_harden or test_log or test_other_databases or test_own_connections or test_self_contained or test_supabase or test_cursor_classes or (test_async_sessions and psycopg))'

lint: install ## Style, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install ## mypy and pyright, as users see the library, too
	$(BIN)/mypy
	$(BIN)/pyright

clean: ## Remove what the other commands made
	rm -rf $(VENV) .venv-2.0 .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist

.PHONY: help install demo test test-long test-sqlalchemy-2.0 lint types clean
