"""A transaction that is bound with BEGIN has its own characteristics, errors and values, as a plain one."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.orm import Session

from sqla_rls import Caller
from sqla_rls.testing.postgres import Server
from tests.support.psycopg_statements import raw
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
)
from tests.support.suite import table

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]

CARRIED = by_transports("with_begin", "pipeline")


@pytest.mark.exhaustive
@CARRIED
def test_nothing_is_sent_for_who_does_nothing(pool: Engine, sessions: Sessions, alice: Caller) -> None:
    for end in (Session.commit, Session.rollback, Session.close):
        with sessions(alice) as session:
            session.connection()
            end(session)
        with pool.connect() as connection:
            assert connection.execute(CALLER).one() == NOBODY


@pytest.mark.exhaustive
@CARRIED
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "ABORT", "END"])
def test_a_transaction_that_sql_ends_is_followed_by_one_that_is_bound(
    sessions: Sessions, todos: None, alice: Caller, end: str
) -> None:
    with sessions(alice) as session:
        session.execute(ANYTHING)
        session.execute(text(end))
        assert session.execute(CALLER).one() == ALICE
        assert session.scalars(TASKS).all() == ["alice's"]


@pytest.mark.exhaustive
@CARRIED
def test_a_transaction_of_psycopgs_is_a_savepoint_of_the_sessions(
    sessions: Sessions, admin: Engine, todos: None, alice: Caller
) -> None:
    for end in (Session.rollback, Session.commit):
        with sessions(alice) as session:
            with raw(session).transaction():
                session.execute(insert(Todo).values(task="another"))
            end(session)
        assert [task for _, task in all_todos(admin)][2:] == (["another"] if end is Session.commit else [])


@CARRIED
@table(
    "options",
    [
        {"isolation_level": "SERIALIZABLE"},
        {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
        {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True, "postgresql_deferrable": True},
    ],
)
def test_the_characteristics_of_a_transaction_stay_its_own(
    sessions: Sessions, alice: Caller, options: dict[str, Any]
) -> None:
    shown = {
        "isolation_level": "transaction_isolation",
        "postgresql_readonly": "transaction_read_only",
        "postgresql_deferrable": "transaction_deferrable",
    }
    with sessions(alice) as session:
        connection = session.connection(execution_options=options)
        for name, wanted in options.items():
            value = connection.scalar(text(f"SHOW {shown[name]}"))
            assert value == ("on" if wanted is True else str(wanted).lower())
        session.commit()
        assert session.scalar(text("SHOW transaction_isolation")) == "read committed"
        assert session.scalar(text("SHOW transaction_read_only")) == "off"


@CARRIED
def test_set_transaction_comes_too_late_and_says_so(sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        with pytest.raises(DBAPIError, match="must be called before any query"):
            session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        session.rollback()
        session.execute(text("SET TRANSACTION READ ONLY"))
        assert session.execute(CALLER).one() == ALICE


@pytest.mark.exhaustive
@by_transports("with_begin")
def test_who_locks_a_table_first_sees_what_the_last_owner_of_the_lock_has_committed(
    server: Server, sessions: Sessions, admin: Engine, todos: None, alice: Caller
) -> None:
    with sessions(alice) as session:
        session.execute(ANYTHING)
        session.commit()
        # Before PostgreSQL 18, the binding takes the snapshot.
        level: Any = "REPEATABLE READ" if server.version >= 18 else "READ COMMITTED"
        session.connection(execution_options={"isolation_level": level})
        with admin.connect() as owner:
            owner.execute(insert(Todo).values(task="another", user_id="alice"))
            release = threading.Timer(0.5, owner.commit)
            release.start()
            session.execute(text("LOCK TABLE todos IN SHARE ROW EXCLUSIVE MODE"))
            release.join()
        assert session.scalars(TASKS).all() == ["alice's", "another"]


@CARRIED
def test_errors_of_a_statement_are_its_own(sessions: Sessions, todos: None, alice: Caller) -> None:
    with sessions(alice) as session:
        for statement, match in (
            ("SELECT 1 / 0", "division by zero"),
            ("SELEC 1", "syntax error"),
            ("SELECT nothing", "does not exist"),
            ("SELECT 1 / :zero", "division by zero"),
        ):
            with pytest.raises(DBAPIError, match=match):
                session.execute(text(statement), {"zero": 0} if ":zero" in statement else {})
            with pytest.raises(DBAPIError, match="aborted"):
                session.execute(ANYTHING)
            session.rollback()
            assert session.scalars(TASKS).all() == ["alice's"]
            session.commit()
        with pytest.raises(ProgrammingError, match="row-level security"):
            session.execute(insert(Todo).values(user_id="bob", task="forged"))


@pytest.mark.exhaustive
@CARRIED
def test_values_arrive_as_they_are(sessions: Sessions) -> None:
    subject = "o'hare \\ \\' $$ %s :x ä€😀 \" {} ; --"
    with sessions(Caller(role="authenticated", subject=subject)) as session:
        assert session.scalar(text("SELECT auth.user_id()")) == subject
        session.execute(text("SET standard_conforming_strings = off"))
        session.commit()
        assert session.scalar(text("SELECT auth.user_id()")) == subject
        session.execute(text("SET standard_conforming_strings = on"))
        session.commit()


@CARRIED
@pytest.mark.parametrize("encoding", ["EUC_TW", "MULE_INTERNAL"])
def test_an_encoding_that_python_lacks_is_not_the_next_callers(
    sessions: Sessions, todos: None, alice: Caller, bob: Caller, encoding: str
) -> None:
    with sessions(alice) as session:
        with suppress(Exception):
            # psycopg can't read the answer.
            raw(session).pgconn.exec_(f"SET client_encoding = '{encoding}'".encode())
        with suppress(Exception):
            session.commit()
    with sessions(bob) as session:
        assert session.scalars(TASKS).all() == ["bob's"]
