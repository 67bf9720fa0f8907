"""A binding that fails runs nothing, leaves the connection clean, and shows no claims."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from sqla_rls import Caller
from sqla_rls.driver.base import Binding, BindingTemplate
from sqla_rls.exc import BindingError, ExpiredToken
from tests.support.clocks import Clocks
from tests.support.sessions import (
    ALICE,
    ANYTHING,
    CALLER,
    NOBODY,
    TASKS,
    Sessions,
    Todo,
    all_todos,
    by_transports,
    kill,
)

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]

CARRIED = by_transports("with_begin", "pipeline")


@CARRIED
def test_a_binding_that_fails_runs_nothing_and_leaves_the_connection_clean(
    admin: Engine, pool: Engine, sessions: Sessions, todos: None, alice: Caller
) -> None:
    names: list[Callable[[Session], object]] = [
        lambda session: session.execute(insert(Todo).values(task="x")),
        lambda session: session.connection().exec_driver_sql("INSERT INTO todos (task) VALUES ('x')"),
        lambda session: session.begin_nested() and session.execute(ANYTHING),
    ]
    for first in names:
        with sessions(Caller(role="nobody_has_it", subject="alice")) as session:
            with pytest.raises(BindingError, match="no such role"):
                first(session)
            with pytest.raises(SQLAlchemyError):
                session.execute(ANYTHING)
            with suppress(SQLAlchemyError):
                # Ends the failed transaction; the next one fails as well.
                session.execute(text("ROLLBACK"))
            with pytest.raises((BindingError, SQLAlchemyError)):
                session.execute(ANYTHING)
            session.rollback()
            with pytest.raises(BindingError, match="no such role"):
                first(session)
        with sessions(alice) as session:
            assert session.scalars(TASKS).all() == ["alice's"]
        with pool.connect() as connection:
            assert connection.execute(CALLER).one() == NOBODY
    assert len(all_todos(admin)) == 2


@pytest.mark.exhaustive
@CARRIED
def test_a_connection_that_breaks_is_no_failed_binding(
    admin: Engine, sessions: Sessions, alice: Caller
) -> None:
    with sessions(alice) as session:
        backend = session.scalar(select(func.pg_backend_pid()))
        session.commit()
        kill(admin, backend)
        with pytest.raises(DBAPIError) as broken:
            session.execute(ANYTHING)
        assert broken.value.connection_invalidated
        session.rollback()
        assert session.execute(CALLER).one() == ALICE


@CARRIED
def test_a_caller_that_expires_before_the_first_statement_is_refused(
    pool: Engine, sessions: Sessions, clocks: Clocks
) -> None:
    expires_at = time.time() + 60
    with sessions(Caller(role="authenticated", subject="alice", expires_at=expires_at)) as session:
        session.execute(ANYTHING)
        session.commit()
        session.connection()
        clocks.ahead = 60
        for _ in range(2):
            with pytest.raises(ExpiredToken):
                session.execute(CALLER)
    with pool.connect() as connection:
        assert connection.execute(CALLER).one() == NOBODY


def test_a_binding_shows_no_claims() -> None:
    assert "secret" not in repr(
        Binding(
            role="authenticated",
            values=['{"sub":"secret"}'],
            template=BindingTemplate(names=("request.jwt.claims",)),
        )
    )
