"""Alice replaces prepared statements of her connection, and none of them is the binding of who comes next."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from tests.support.line import How, Line, hows
from tests.support.sessions import ANYTHING, BACKEND, CALLER, TASKS, Todo, by_transports, statements_of
from tests.support.signing import Signed

pytestmark = pytest.mark.sqlalchemy

#: psycopg prepares a statement when it comes the fifth time.
UNTIL_PREPARED = 8
BOB = ("authenticated", "bob")
PREPARED = text("SELECT statement FROM pg_prepared_statements")
#: Names that occur in statements of sqla_rls, and in none of the tests.
OURS = ("set_config", "pg_settings", "current_setting(", "pg_policy", "has_schema_privilege", "auth.session")


def planted(pattern: str, *replacements: tuple[str, str]) -> str:
    """SQL that prepares each statement like *pattern* again under its name, with *replacements*."""
    sql = "statement"
    for parameter, value in replacements:
        sql = f"replace({sql}, '{parameter}', {value})"
    return f"""DO $$DECLARE one record; BEGIN
      FOR one IN SELECT name, parameter_types AS types, {sql} AS sql
                   FROM pg_prepared_statements WHERE statement LIKE '{pattern}' LOOP
        EXECUTE format('DEALLOCATE %I', one.name);
        EXECUTE format('PREPARE %I (%s) AS %s', one.name, array_to_string(one.types, ','), one.sql);
      END LOOP; END$$"""


async def test_alice_cannot_replace_the_signed_binding_of_asyncpg(
    signed: Signed, runner: asyncio.Runner, alice: Caller, bob: Caller
) -> None:
    url = signed.app.url.set(drivername="postgresql+asyncpg").update_query_dict({"ssl": "disable"})
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    maker = async_sessionmaker(engine)
    enforce_row_security(maker, signing_key=signed.key, options=BindingOptions(signing="required"))
    plant = planted(
        "SELECT pg_catalog.num_nulls(%",
        ("$3", "quote_literal(current_setting('pg_session_jwt.jwt'))"),
        ("$1", "'''authenticated'''"),
    )
    for sql in [*["SELECT 1"] * UNTIL_PREPARED, plant]:
        async with maker() as session:
            identify(session, alice)
            await session.execute(text(sql))
            await session.commit()
    async with maker() as session:
        identify(session, bob)
        assert (await session.scalars(TASKS)).all() == ["bob's"]
    await engine.dispose()


@by_transports("statement")
def test_alice_cannot_replace_the_binding_by_a_statement(
    maker: sessionmaker[Session], todos: None, alice: Caller, bob: Caller
) -> None:
    plant = planted("SELECT pg_catalog.set_config(%", ("$2", "'''{\"sub\":\"alice\"}'''"))
    for sql in [*["SELECT 1"] * UNTIL_PREPARED, plant]:
        with maker() as session:
            identify(session, alice)
            session.execute(text(sql))
            session.commit()
    with maker() as session:
        identify(session, bob)
        assert session.execute(CALLER).one() == BOB


@pytest.mark.exhaustive
@pytest.mark.parametrize("joins", [False, True])
async def test_no_driver_prepares_a_statement_of_sqla_rls(
    runner: asyncio.Runner,
    async_pool: AsyncEngine,
    async_transport: Transport,
    alice: Caller,
    bob: Caller,
    joins: bool,
) -> None:
    maker: async_sessionmaker[AsyncSession] = async_sessionmaker()
    enforce_row_security(maker, options=BindingOptions(transport=async_transport))
    for number in range(UNTIL_PREPARED):
        # Each role is checked when it comes first.
        callers = [alice, bob] if number else [alice, Caller(role="anonymous"), bob]
        for caller in callers:
            async with async_pool.connect() as connection:
                if joins:
                    await connection.execute(ANYTHING)
                async with maker(bind=connection) as session:
                    identify(session, caller)
                    assert (await session.execute(ANYTHING)).one() == (1,)
                    await session.commit()
                await connection.commit()
    async with async_pool.connect() as connection:
        prepared = (await connection.scalars(PREPARED)).all()
    assert any(statement == ANYTHING.text for statement in prepared)
    assert [statement for statement in prepared if any(name in statement for name in OURS)] == []


def test_with_another_driver_each_binding_is_a_new_statement(
    pool: Engine, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, options=BindingOptions(transport="statement"))
    monkeypatch.setattr(pool.dialect, "driver", "another")
    sent = statements_of(pool)
    for _ in range(UNTIL_PREPARED):
        with maker() as session:
            identify(session, alice)
            session.execute(ANYTHING)
            session.commit()
    bindings: list[Any] = [statement for statement in sent if "set_config" in statement]
    assert len(bindings) == len(set(bindings)) == UNTIL_PREPARED
    assert sent.count(ANYTHING.text) == UNTIL_PREPARED


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", hows())
def test_who_comes_after_the_prepared_statements_are_gone_has_one_error_at_most(
    url: URL, runner: asyncio.Runner, todos: None, how: How, alice: Caller, bob: Caller
) -> None:
    def tasks(session: Session) -> object:
        return session.scalars(TASKS.where(Todo.id > 0)).all()

    def deallocate(session: Session) -> None:
        session.execute(text("DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$"))
        session.commit()

    line = Line(url, how, runner)
    for _ in range(UNTIL_PREPARED):
        assert line.visit(bob, tasks) == ["bob's"]
    line.visit(alice, deallocate)
    with suppress(DBAPIError):
        line.visit(bob, tasks)
    assert line.visit(bob, tasks) == ["bob's"]
    line.hang_up()


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", hows())
def test_a_statement_that_the_caller_has_not_prepared_costs_no_connection(
    url: URL, runner: asyncio.Runner, todos: None, how: How, alice: Caller
) -> None:
    def work(session: Session) -> object:
        before = session.scalar(BACKEND)
        savepoint = None if how.autocommit else session.begin_nested()
        with pytest.raises(DBAPIError, match="does not exist"):
            session.execute(text("EXECUTE nothing"))
        if savepoint is not None:
            savepoint.rollback()
        assert session.scalars(TASKS).all() == ["alice's"]
        return session.scalar(BACKEND) == before

    line = Line(url, how, runner)
    assert line.visit(alice, work)
    line.hang_up()


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", hows(["asyncpg, pipeline", "asyncpg, one-shot"]))
def test_a_name_of_the_applications_own_is_one_of_the_drivers(
    url: URL, runner: asyncio.Runner, todos: None, how: How, alice: Caller, bob: Caller
) -> None:
    names = map("named_{}".format, count())
    line = Line(url, how, runner, {"prepared_statement_name_func": names.__next__})
    assert line.visit(bob, lambda session: session.scalars(TASKS).all()) == ["bob's"]
    line.visit(alice, lambda session: session.execute(text("DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$")))
    with pytest.raises(DBAPIError, match="does not exist"):
        line.visit(bob, lambda session: session.scalars(TASKS).all())
    assert line.visit(bob, lambda session: session.scalars(TASKS).all()) == ["bob's"]
    line.hang_up()
