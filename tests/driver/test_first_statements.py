"""A transaction is bound by the first statement on it, in whatever way that statement comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from sqla_rls import Caller
from tests.support.psycopg_statements import (
    WHO,
    by_copy,
    by_cursor,
    by_executemany_of_psycopg,
    by_server_cursor,
    by_stream,
    by_yield_per,
    raw,
)
from tests.support.sessions import ALICE, ANYTHING, CALLER, NOBODY, Sessions, by_transports
from tests.support.suite import first_and_rest

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]

CARRIED = by_transports("with_begin", "pipeline")


def by_cursor_with_parameters(session: Session) -> object:
    return raw(session).cursor().execute(WHO + " WHERE %s", [True]).fetchone()


def by_several_statements(session: Session) -> object:
    return (
        session.connection().exec_driver_sql(f"SELECT 1; {WHO}").connection and session.execute(CALLER).one()
    )


def by_the_connection(session: Session) -> object:
    return raw(session).execute(WHO).fetchone()


def by_a_transaction_of_psycopgs(session: Session) -> object:
    connection = raw(session)
    with connection.transaction(force_rollback=True):
        assert connection.execute(WHO).fetchone() == ALICE
    return connection.execute(WHO).fetchone()


def by_a_pipeline_of_psycopgs(session: Session) -> object:
    connection = raw(session)
    with connection.pipeline():
        connection.execute("SELECT 1")
        cursor = connection.execute(WHO)
    return cursor.fetchone()


def by_savepoint(session: Session) -> object:
    session.begin_nested().rollback()
    return session.execute(CALLER).one()


def by_prepared_statement(session: Session) -> object:
    for _ in range(8):
        who = raw(session).execute(WHO + " WHERE %s", [True]).fetchone()
        assert who == ALICE
        session.commit()
    return session.execute(CALLER).one()


FIRST = [
    by_cursor,
    by_cursor_with_parameters,
    by_several_statements,
    by_the_connection,
    by_server_cursor,
    by_stream,
    by_copy,
    by_executemany_of_psycopg,
    by_a_transaction_of_psycopgs,
    by_a_pipeline_of_psycopgs,
    by_yield_per,
    by_savepoint,
    by_prepared_statement,
]


@CARRIED
@first_and_rest("ways", FIRST)
def test_whatever_comes_first_is_bound(
    pool: Engine,
    sessions: Sessions,
    alice: Caller,
    ways: list[Callable[[Session], object]],
    subtests: pytest.Subtests,
) -> None:
    for first in ways:
        with subtests.test(first.__name__):
            pool.dispose()
            with sessions(alice) as session:
                session.execute(ANYTHING)
                session.rollback()
                for _ in range(2):
                    assert first(session) == ALICE
                    session.commit()
            with pool.connect() as connection:
                assert connection.execute(CALLER).one() == NOBODY
