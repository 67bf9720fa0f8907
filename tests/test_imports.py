"""The modules that a process imports, and those that wait until it needs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

import sqla_rls
from sqla_rls.testing.postgres import Server

#: The modules that PyJWT and cryptography import take as much time as all of sqla_rls.
_TOKENS = {"jwt", "cryptography", "sqla_rls.tokens.jwks", "sqla_rls.tokens.verifier", "sqla_rls.provider"}
_SESSIONS = {"sqla_rls.session", "sqla_rls.driver", "sqla_rls.tokens"}
_MIGRATIONS = {"alembic", "sqla_rls.alembic", "sqla_rls.catalog", "sqla_rls.create_all", "sqla_rls.diff"}
_DRIVERS = {"psycopg", "asyncpg"}
_SOME_CHANGES = {"graphlib", "hmac", "sqla_rls.catalog.missing_calls", "sqla_rls.catalog.missing_grants"}

_REQUESTS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker

import sqla_rls

engine = create_engine(sys.argv[1], pool_size=8)
maker = sessionmaker(engine)
sqla_rls.enforce_row_security(maker)
together = Barrier(8)


def transaction(number):
    together.wait()
    with maker() as session:
        sqla_rls.identify(session, sqla_rls.Caller(role="authenticated", subject=f"person_{number}"))
        return session.scalar(text("SELECT auth.user_id()"))


with ThreadPoolExecutor(8) as threads:
    assert [*threads.map(transaction, range(8))] == [f"person_{number}" for number in range(8)]
"""


def imported(code: str, *arguments: str) -> set[str]:
    """Return the modules that a new process has after *code*."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps([*sys.modules]))", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.exhaustive
@pytest.mark.one_postgres
def test_declarations_import_no_session_no_migration_and_no_driver() -> None:
    found = imported("import sqla_rls")
    assert not found & (_TOKENS | _SESSIONS | _MIGRATIONS | _DRIVERS)


@pytest.mark.exhaustive
@pytest.mark.one_postgres
def test_every_public_name_is_there_without_an_import_before() -> None:
    assert "sqla_rls.tokens.verifier" in imported("from sqla_rls import *\nVerifier, provider.supabase")
    assert set(sqla_rls.__all__) <= set(dir(sqla_rls))
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(sqla_rls, "no_such_name")  # noqa: B009 - a type checker knows better


_CHECK = """
import sys

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine

from sqla_rls import auth_uid, authenticated, crud_policy

metadata = MetaData()
policies = crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id"))
Table("imports_notes", metadata, Column("id", Integer, primary_key=True), Column("user_id", Text), policies)
with create_engine(sys.argv[1]).connect() as connection:
    metadata.create_all(connection)
    context = MigrationContext.configure(connection)
    assert not compare_metadata(context, metadata)
"""


@pytest.mark.one_postgres
@pytest.mark.exhaustive
def test_a_check_without_changes_imports_nothing_that_only_some_changes_need(server: Server) -> None:
    name = server.create_database()
    try:
        found = imported(_CHECK, server.url(name).render_as_string(hide_password=False))
    finally:
        server.drop_database(name)
    assert "sqla_rls.diff.policies" in found
    assert not found & _SOME_CHANGES
    assert not any(one.startswith(("sqla_rls.analyze", "sqla_rls.introspect")) for one in found)


# pg_session_jwt, where a server has it, needs a signing key, and so PyJWT.
@pytest.mark.one_postgres
@pytest.mark.exhaustive
def test_threads_that_make_the_first_requests_import_neither_pyjwt_nor_migrations(url: URL) -> None:
    found = imported(_REQUESTS, url.render_as_string(hide_password=False))
    assert not found & (_TOKENS | _MIGRATIONS)
