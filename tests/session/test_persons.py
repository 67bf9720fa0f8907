"""Who a session is: one person's, whatever tokens come, and never a second person's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from sqla_rls.exc import CallerChanged, CallerRequired, DeclarationError, TransactionRefused
from sqla_rls.testing.issuer import Issuer
from tests.support.sessions import ANYTHING, CALLER, TASKS, Todo, all_todos, kill, statements_of, verifier_of
from tests.support.suite import table

pytestmark = pytest.mark.sqlalchemy

#: Of two that are one person to nobody: another tenant, another issuer, no subject, another role.
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tenant": (
        {"subject": "alice", "claims": {"org_id": "a"}},
        {"subject": "alice", "claims": {"org_id": "b"}},
    ),
    "issuer": ({"subject": "alice", "claims": {"iss": "a"}}, {"subject": "alice", "claims": {"iss": "b"}}),
    "API key": ({"claims": {"org_id": "a"}}, {"claims": {"org_id": "b"}}),
    "subject": ({"subject": "alice"}, {"subject": "bob"}),
}


@pytest.fixture(params=OTHERS.values(), ids=list(OTHERS))
def two(request: pytest.FixtureRequest) -> tuple[Caller, Caller]:
    """Two callers with the same role."""
    first, second = request.param
    return Caller(role="authenticated", **first), Caller(role="authenticated", **second)


class Asked:
    """The callback of a factory: who is calling, now."""

    caller: Caller

    def __call__(self) -> Caller:
        return self.caller


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def maker(pool: Engine, asked: Asked) -> sessionmaker[Session]:
    """Of sessions that keep what they have loaded."""
    maker = sessionmaker(pool, expire_on_commit=False)
    enforce_row_security(maker, token=asked)
    return maker


def test_what_one_has_changed_is_never_flushed_for_another(
    maker: sessionmaker[Session], admin: Engine, todos: None, asked: Asked, two: tuple[Caller, Caller]
) -> None:
    asked.caller, other = two
    with maker() as session:
        session.execute(ANYTHING)
        session.add(Todo(user_id="alice", task="of the first"))
        session.rollback()
        session.add(Todo(user_id="alice", task="of the first"))
        asked.caller = other
        with pytest.raises(CallerChanged, match="another caller"):
            session.commit()
    assert all_todos(admin) == [("alice", "alice's"), ("bob", "bob's")]


@pytest.mark.exhaustive
def test_what_one_has_loaded_is_never_returned_to_another(
    maker: sessionmaker[Session], admin: Engine, asked: Asked, two: tuple[Caller, Caller]
) -> None:
    asked.caller, other = two
    with Session(admin) as session:
        loaded = Todo(user_id="alice", task="loaded")
        session.add(loaded)
        session.commit()
        session.refresh(loaded)
    with maker() as session:
        session.execute(ANYTHING)
        # As if it were loaded: callers without a subject see nothing here.
        todo = session.merge(loaded, load=False)
        session.commit()
        asked.caller = other
        touches: list[Callable[[], object]] = [
            lambda: session.get(Todo, todo.id),
            lambda: session.get_one(Todo, todo.id),
            lambda: session.query(Todo).get(todo.id),
            lambda: session.merge(Todo(id=todo.id, task="x")),
            lambda: session.merge(todo, load=False),
        ]
        for touch in touches:
            with pytest.raises(CallerChanged, match="another caller"):
                touch()
            with pytest.raises(TransactionRefused):
                touch()
            session.rollback()


def test_what_one_has_loaded_stays_ones_own_without_a_query(
    maker: sessionmaker[Session], pool: Engine, todos: None, asked: Asked, alice: Caller
) -> None:
    asked.caller = alice
    with maker() as session:
        todo = session.scalars(select(Todo)).one()
        session.commit()
        sent = statements_of(pool)
        # Another token of the same sign-in.
        asked.caller = Caller(role="authenticated", subject="alice", claims={"iat": 1, "exp": 2})
        assert session.get(Todo, todo.id) is todo
        assert sent == []


@pytest.mark.exhaustive
async def test_what_one_has_loaded_by_asyncio_is_never_returned_to_another(
    runner: asyncio.Runner, async_pool: AsyncEngine, todos: None, asked: Asked, alice: Caller, bob: Caller
) -> None:
    maker = async_sessionmaker(async_pool, expire_on_commit=False)
    enforce_row_security(maker, token=asked)
    asked.caller = alice
    session: AsyncSession
    async with maker() as session:
        todo = (await session.scalars(select(Todo))).one()
        await session.commit()
        assert await session.get(Todo, todo.id) is todo
        await session.commit()
        asked.caller = bob
        with pytest.raises(CallerChanged):
            await session.get(Todo, todo.id)
        await session.rollback()
        todo.task = "changed"
        with pytest.raises(CallerChanged):
            await session.commit()


def test_an_application_may_name_the_claims_of_a_person(pool: Engine, asked: Asked) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, token=asked, options=BindingOptions(principal_claims=["org_id"]))
    with maker() as session:
        for plan in ("free", "paid"):
            claims = {"org_id": "a", "plan": plan}
            asked.caller = Caller(role="authenticated", subject="alice", claims=claims)
            session.execute(ANYTHING)
            session.commit()
        for change in ({"org_id": "b"}, {"org_id": "a", "iss": "other"}, {}):
            asked.caller = Caller(role="authenticated", subject="alice", claims=change)
            with pytest.raises(CallerChanged):
                session.execute(ANYTHING)
            session.rollback()
    with pytest.raises(DeclarationError, match="list of names"):
        enforce_row_security(sessionmaker(pool), options=BindingOptions(principal_claims="org_id"))


def test_a_refreshed_token_goes_on_in_a_session(
    pool: Engine, issuer: Issuer, todos: None, transport: Transport, alice: Caller
) -> None:
    maker = sessionmaker(pool, expire_on_commit=False)
    enforce_row_security(maker, verifier=verifier_of(issuer), options=BindingOptions(transport=transport))
    verifier = verifier_of(issuer)
    with maker() as session:
        identify(session, verifier.verify(issuer.token("alice", issued_at=1e9, expires_in=2e9)))
        todo = session.scalars(select(Todo)).one()
        # In a transaction and with changes that aren't flushed: it is the same person.
        todo.task = "changed"
        fresh = verifier.verify(issuer.token("alice"))
        identify(session, fresh)
        session.commit()
        sent = statements_of(pool)
        identify(session, verifier.verify(issuer.token("alice", issued_at=1e9 + 1, expires_in=2e9)))
        assert session.get(Todo, todo.id) is todo
        assert todo.task == "changed"
        assert sent == []


@pytest.mark.exhaustive
def test_reset_all_discards_what_another_tenants_caller_left(url: URL, asked: Asked) -> None:
    engine = create_engine(url, pool_size=1, max_overflow=0)
    maker = sessionmaker(engine)
    enforce_row_security(maker, token=asked, options=BindingOptions(reset="all"))
    for org, left in (("a", []), ("a", ["left"]), ("b", [])):
        asked.caller = Caller(role="authenticated", subject="alice", claims={"org_id": org})
        with maker() as session:
            assert session.scalars(text("SELECT pg_listening_channels()")).all() == left
            session.execute(text('LISTEN "left"'))
            session.commit()
    engine.dispose()


# Refused transactions


class Refusal(Exception):
    pass


def held_by(session: Session) -> list[Any]:
    """The connections of its transaction, where SQLAlchemy shows them (2.1)."""
    transaction = session.get_transaction()
    return [] if transaction is None else list(getattr(transaction, "connections", ()))


@pytest.mark.exhaustive
@pytest.mark.parametrize("given", ["engine", "connection"])
@pytest.mark.parametrize("refused_by", ["callback", "hook"])
def test_nothing_runs_in_a_transaction_that_was_refused(
    pool: Engine, transport: Transport, todos: None, alice: Caller, given: str, refused_by: str
) -> None:
    def refuse(*_: object) -> None:
        raise Refusal

    maker = sessionmaker(pool)
    if refused_by == "hook":
        enforce_row_security(
            maker, on_bind=refuse, token=lambda: alice, options=BindingOptions(transport=transport)
        )
    else:
        enforce_row_security(maker, token=refuse, options=BindingOptions(transport=transport))
    connection = pool.connect() if given == "connection" else None
    session = maker(bind=connection or pool)
    for _ in range(2):
        with pytest.raises(Refusal):
            session.execute(ANYTHING)
        ran: list[object] = []
        runs: list[Callable[[], object]] = [
            lambda: session.connection().execute(CALLER),
            lambda: session.connection(bind_arguments={"bind": connection or pool}).execute(CALLER),
            lambda: session.execute(CALLER, bind_arguments={"bind": connection or pool}),
        ]
        for held in held_by(session):
            runs += [
                partial(held.execute, CALLER),
                partial(held.exec_driver_sql, "SELECT 1"),
                held.begin_nested,
            ]
        for run in runs:
            with pytest.raises(TransactionRefused, match="rollback"):
                ran.append(run())
        assert ran == []
        session.rollback()
    session.close()
    if connection is not None:
        # It is the application's again.
        assert connection.execute(CALLER).one() == ("app", None)
        connection.close()


def test_a_hook_that_refuses_a_joined_transaction_leaves_it_as_it_was(
    pool: Engine, transport: Transport, alice: Caller
) -> None:
    def refuse(*_: object) -> None:
        raise Refusal

    maker = sessionmaker(pool, join_transaction_mode="create_savepoint")
    enforce_row_security(maker, on_bind=refuse, options=BindingOptions(transport=transport))
    with pool.connect() as connection, connection.begin():
        session = maker(bind=connection)
        identify(session, alice)
        with pytest.raises(Refusal):
            session.execute(ANYTHING)
        assert connection.execute(CALLER).one() == ("app", None)
        with pytest.raises(TransactionRefused):
            session.connection(bind_arguments={"bind": connection})
        session.close()


# Sessions whose backend is gone


@table("end", ["close", "invalidate", "reset", "rollback", "commit"])
def test_a_session_that_fails_to_end_is_of_use_again(
    admin: Engine, pool: Engine, transport: Transport, todos: None, alice: Caller, bob: Caller, end: str
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    session = maker()
    identify(session, alice)
    kill(admin, session.scalar(select(func.pg_backend_pid())))
    with suppress(SQLAlchemyError):
        getattr(session, end)()
    if end in ("close", "invalidate", "reset"):
        with pytest.raises(CallerRequired):
            session.execute(ANYTHING)
    session.rollback()
    identify(session, bob)
    assert session.scalars(TASKS).all() == ["bob's"]
    session.close()


@pytest.mark.exhaustive
def test_a_scoped_session_that_fails_to_close_serves_the_next_request(
    admin: Engine, pool: Engine, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker)
    scoped = scoped_session(maker)
    identify(scoped, alice)
    kill(admin, scoped.scalar(select(func.pg_backend_pid())))
    with pytest.raises(SQLAlchemyError):
        scoped.remove()
    with pytest.raises(CallerRequired):
        scoped.execute(ANYTHING)
    scoped.rollback()
    identify(scoped, bob)
    assert scoped.scalars(TASKS).all() == ["bob's"]
    scoped.remove()


@pytest.mark.exhaustive
async def test_an_async_session_that_fails_to_close_is_of_use_again(
    runner: asyncio.Runner,
    async_pool: AsyncEngine,
    async_transport: Transport,
    admin: Engine,
    todos: None,
    alice: Caller,
    bob: Caller,
) -> None:
    maker = async_sessionmaker(async_pool)
    enforce_row_security(maker, options=BindingOptions(transport=async_transport))
    session: AsyncSession = maker()
    identify(session, alice)
    kill(admin, await session.scalar(select(func.pg_backend_pid())))
    with suppress(SQLAlchemyError):
        await session.close()
    with pytest.raises(CallerRequired):
        await session.execute(ANYTHING)
    await session.rollback()
    identify(session, bob)
    assert (await session.scalars(TASKS)).all() == ["bob's"]
    await session.close()
