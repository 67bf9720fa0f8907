"""What Postgres denies to a caller has a name, a command and a table."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, delete, event, insert, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.exc import AccessDenied, PrivilegeMissing, RowSecurityViolation
from sqla_rls.http import is_denied
from tests.support.sessions import Todo

THEIRS = insert(Todo).values(task="new", user_id="bob")
DENIALS: dict[str, tuple[Any, type[AccessDenied], str | None, str | None]] = {
    "a row of another": (THEIRS, RowSecurityViolation, "INSERT", "todos"),
    "a row given away": (update(Todo).values(user_id="bob"), RowSecurityViolation, "UPDATE", "todos"),
    "SQL text": (text("DELETE FROM pg_authid"), PrivilegeMissing, None, None),
}


def denied(session: Session, statement: Any) -> AccessDenied:
    with pytest.raises(AccessDenied) as denial:
        session.execute(statement)
    session.rollback()
    return denial.value


@pytest.fixture
def session(url: URL, todos: None, alice: Caller) -> Any:
    engine = create_engine(url, poolclass=NullPool)
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        yield session


@pytest.mark.parametrize("name", DENIALS)
def test_a_denial_has_a_name_a_command_and_a_table(session: Session, name: str) -> None:
    statement, kind, command, table = DENIALS[name]
    error = denied(session, statement)
    assert (type(error), error.command, error.table) == (kind, command, table)
    assert isinstance(error, ProgrammingError)
    original: Any = error.orig
    assert (original.sqlstate, is_denied(error)) == ("42501", True)
    assert str(error.orig) in str(error)
    assert str(error).startswith(f"{command} on {table} is denied" if command else "the statement is denied")


def test_objects_that_the_session_flushes_are_named(session: Session) -> None:
    session.add(Todo(task="new", user_id="bob"))
    with pytest.raises(RowSecurityViolation, match="INSERT on todos is denied"):
        session.flush()


def test_anonymous_lacks_the_privilege(url: URL) -> None:
    maker = sessionmaker(create_engine(url, poolclass=NullPool))
    enforce_row_security(maker)
    with maker() as session:
        identify(session, Caller.anonymous())
        error = denied(session, delete(Todo))
    assert (type(error), error.command, error.table) == (PrivilegeMissing, "DELETE", "todos")


async def test_each_driver_tells_the_two_apart(async_pool: AsyncEngine, todos: None, alice: Caller) -> None:
    maker = async_sessionmaker(async_pool)
    enforce_row_security(maker)
    async with maker() as session:
        identify(session, alice)
        for statement, kind, command, table in DENIALS.values():
            with pytest.raises(kind) as denial:
                await session.execute(statement)
            assert (denial.value.command, denial.value.table) == (command, table)
            await session.rollback()


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_says_the_same(session: Session, copied: Any) -> None:
    error = denied(session, THEIRS)
    again = copied(error)
    assert (str(again), again.command, again.table) == (str(error), "INSERT", "todos")


def test_other_errors_stay_what_they_are(session: Session) -> None:
    with pytest.raises(ProgrammingError) as error:
        session.execute(text("SELECT nothing FROM nowhere"))
    assert not isinstance(error.value, AccessDenied)


def test_an_engine_at_the_address_of_another_one_is_no_exception(
    url: URL, todos: None, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The registry of events knows an engine by its address, also when that engine is gone.
    monkeypatch.setattr(event, "contains", lambda *_: True)
    maker = sessionmaker(create_engine(url, poolclass=NullPool))
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        assert type(denied(session, THEIRS)) is RowSecurityViolation
        assert type(denied(session, THEIRS)) is RowSecurityViolation
