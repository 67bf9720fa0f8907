"""How a session comes to know its caller, beyond a caller that it is given, and who hears of it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sqla_rls import Caller, ServiceAccess, enforce_row_security, identify, service_session
from sqla_rls.exc import (
    BindingError,
    CallerChanged,
    CallerRequired,
    DeclarationError,
    InvalidToken,
    TransactionRefused,
)
from sqla_rls.testing.issuer import Issuer
from tests.support.sessions import (
    ANYTHING,
    CALLER,
    NOBODY,
    TASKS,
    Todo,
    all_todos,
    assert_refused,
    verifier_of,
)

pytestmark = pytest.mark.sqlalchemy


class Teller:
    """Answers whatever it was told to, and counts how often it was asked."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.asked = 0

    def __call__(self) -> Any:
        self.asked += 1
        return self.answer

    async def later(self) -> Any:
        return self()


@pytest.fixture
def teller() -> Teller:
    return Teller()


@pytest.fixture
def maker(pool: Engine, issuer: Issuer, teller: Teller) -> sessionmaker[Session]:
    """Of sessions that ask *teller*, all of them."""
    maker = sessionmaker(pool)
    enforce_row_security(maker, verifier=verifier_of(issuer), token=teller)
    return maker


# Token callbacks


def test_a_callback_is_asked_in_each_transaction(
    maker: sessionmaker[Session], issuer: Issuer, teller: Teller, todos: None
) -> None:
    for count, name in enumerate(("alice", "bob")):
        with maker() as session:
            for number in range(1, 4):
                # Refreshed, as providers do: another token of the same person.
                teller.answer = issuer.token(name)
                assert session.scalars(TASKS).all() == [f"{name}'s"]
                assert session.scalars(TASKS).all() == [f"{name}'s"]
                assert teller.asked == 3 * count + number
                session.commit()


@pytest.mark.exhaustive
def test_a_session_may_have_a_callback_of_its_own(
    maker: sessionmaker[Session], issuer: Issuer, teller: Teller
) -> None:
    with maker(token=lambda: issuer.token("alice")) as session:
        assert session.execute(CALLER).one() == ("authenticated", "alice")
        session.close()
        teller.answer = issuer.token("bob")
        assert session.execute(CALLER).one() == ("authenticated", "bob")
    assert teller.asked == 1


@pytest.mark.exhaustive
def test_a_callback_may_answer_with_a_caller(maker: sessionmaker[Session], teller: Teller) -> None:
    teller.answer = Caller.anonymous()
    with maker() as session:
        assert session.execute(CALLER).one() == ("anonymous", None)


def test_a_caller_comes_before_the_callback(
    maker: sessionmaker[Session], teller: Teller, alice: Caller
) -> None:
    with maker() as session:
        identify(session, alice)
        assert session.execute(CALLER).one() == ("authenticated", "alice")
    assert teller.asked == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, CallerRequired),
        ("", InvalidToken),
        ("garbage", InvalidToken),
        (b"token", InvalidToken),
        (0, InvalidToken),
    ],
)
def test_a_callback_without_a_good_answer_reads_nothing(
    maker: sessionmaker[Session], teller: Teller, answer: object, error: type[Exception]
) -> None:
    teller.answer = answer
    with maker() as session:
        assert_refused(session, error)


def test_a_callback_that_fails_reads_nothing(maker: sessionmaker[Session]) -> None:
    with maker(token=lambda: 1 // 0) as session:
        assert_refused(session, ZeroDivisionError)


def test_a_callback_needs_a_verifier_for_tokens(pool: Engine, issuer: Issuer) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, token=lambda: issuer.token("alice"))
    with maker() as session:
        assert_refused(session, DeclarationError, "needs a verifier")


def test_only_sessions_of_asyncio_wait_for_a_callback(maker: sessionmaker[Session], teller: Teller) -> None:
    with maker(token=teller.later) as session:
        assert_refused(session, DeclarationError, "can't wait")


@pytest.mark.exhaustive
def test_a_session_never_goes_from_one_person_to_another_by_itself(
    pool: Engine, issuer: Issuer, teller: Teller, admin: Engine, todos: None, bob: Caller
) -> None:
    maker = sessionmaker(pool, expire_on_commit=False)
    enforce_row_security(maker, verifier=verifier_of(issuer), token=teller)
    scoped = scoped_session(maker)
    teller.answer = issuer.token("alice")
    todo = scoped.scalars(select(Todo)).one()
    scoped.commit()
    todo.task = "changed by alice"
    for teller.answer in (issuer.token("bob"), Caller.anonymous()):
        with pytest.raises(CallerChanged, match="another caller"):
            scoped.execute(ANYTHING)
        scoped.rollback()
    scoped.remove()
    teller.answer = issuer.token("bob")
    assert scoped.scalars(TASKS).all() == ["bob's"]
    scoped.remove()
    assert all_todos(admin) == [("alice", "alice's"), ("bob", "bob's")]


@pytest.fixture
def async_maker(async_pool: AsyncEngine, issuer: Issuer, teller: Teller) -> async_sessionmaker[AsyncSession]:
    maker = async_sessionmaker(async_pool, expire_on_commit=False)
    enforce_row_security(maker, verifier=verifier_of(issuer), token=teller.later)
    return maker


async def test_a_callback_may_be_a_coroutine_function(
    runner: asyncio.Runner,
    async_maker: async_sessionmaker[AsyncSession],
    issuer: Issuer,
    teller: Teller,
    todos: None,
) -> None:
    async def later() -> str:
        await asyncio.sleep(0.001)
        return issuer.token("bob")

    async with async_maker() as session:
        for asked in (1, 2):
            teller.answer = issuer.token("alice")
            assert (await session.scalars(TASKS)).all() == ["alice's"]
            assert teller.asked == asked
            await session.commit()
        teller.answer = issuer.token("bob")
        with pytest.raises(CallerChanged):
            await session.execute(ANYTHING)
        with pytest.raises(TransactionRefused):
            await session.execute(ANYTHING)
        await session.rollback()
        teller.answer = None
        await session.run_sync(assert_refused, CallerRequired)
    for callback in (later, lambda: issuer.token("bob")):
        async with async_maker(
            sync_session_class=async_maker.kw["sync_session_class"], token=callback
        ) as session:
            assert (await session.scalars(TASKS)).all() == ["bob's"]


@pytest.mark.exhaustive
async def test_each_task_asks_for_itself(
    runner: asyncio.Runner, async_maker: async_sessionmaker[AsyncSession], issuer: Issuer, teller: Teller
) -> None:
    scoped = async_scoped_session(async_maker, asyncio.current_task)

    async def work(name: str) -> None:
        identify(scoped, Caller(role="authenticated", subject=name))
        assert (await scoped.execute(CALLER)).one() == ("authenticated", name)
        await scoped.remove()

    await asyncio.gather(*map(work, ["alice", "bob", "carol"]))


# Service sessions


@pytest.fixture
def jobs(admin: Engine) -> sessionmaker[Session]:
    """Of an engine whose login role is above row security, as that of an application's jobs may be."""
    maker = sessionmaker(admin)
    enforce_row_security(maker)
    return maker


def test_a_service_session_sees_everything_on_nobodys_behalf(
    jobs: sessionmaker[Session], admin: Engine, todos: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sqla_rls"), service_session(jobs, reason="nightly report") as session:
        assert session.scalars(TASKS).all() == ["alice's", "bob's"]
        session.execute(insert(Todo).values(user_id="carol", task="imported"))
        session.commit()
        assert session.execute(CALLER).one() == (admin.url.username, None)
        assert session.scalar(text("SELECT auth.user_id()")) is None
    logged = [record.getMessage() for record in caplog.records]
    assert [entry.partition(": ")[2] for entry in logged if "service" in entry] == ["nightly report"] * 2
    assert len(all_todos(admin)) == 3


@pytest.mark.exhaustive
def test_only_who_says_so_gets_a_service_session(
    jobs: sessionmaker[Session], pool: Engine, alice: Caller
) -> None:
    with jobs() as session:
        assert_refused(session, CallerRequired)
    with service_session(jobs, reason="repair") as session:
        session.execute(ANYTHING)
        session.close()
        assert_refused(session, CallerRequired)
    for reason in ("", " ", None):
        with pytest.raises(DeclarationError, match="reason"):
            service_session(jobs, reason=reason)  # type: ignore[arg-type] # pyright: ignore
    with pytest.raises(BindingError, match="enforce_row_security"):
        service_session(sessionmaker(pool), reason="repair")


def test_a_service_session_may_take_on_a_role(
    maker: sessionmaker[Session], todos: None, alice: Caller
) -> None:
    with service_session(maker, reason="count", role="authenticated") as session:
        assert session.execute(CALLER).one() == ("authenticated", None)
        assert session.scalars(TASKS).all() == []
        session.commit()
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's"]
    for role in ("", "none", "public"):
        with pytest.raises(DeclarationError, match="role"):
            service_session(maker, reason="count", role=role)
    with service_session(maker, reason="count", role="nobody_like_that") as session:
        assert_refused(session, BindingError, "no such role")


@pytest.mark.exhaustive
def test_a_service_session_finds_nothing_that_a_caller_left(
    pool: Engine, maker: sessionmaker[Session], todos: None, alice: Caller
) -> None:
    with maker() as session:
        identify(session, alice)
        session.execute(text("SET ROLE authenticated"))
        session.execute(text("""SET request.jwt.claims = '{"sub": "alice"}'"""))
        session.commit()
    with service_session(maker, reason="nothing") as session:
        assert session.execute(CALLER).one() == NOBODY


@pytest.mark.exhaustive
async def test_a_service_session_of_asyncio(
    runner: asyncio.Runner, async_maker: async_sessionmaker[AsyncSession], todos: None
) -> None:
    scoped = async_scoped_session(async_maker, asyncio.current_task)
    for factory in (async_maker, scoped):
        async with service_session(factory, reason="count", role="authenticated") as session:
            assert (await session.execute(CALLER)).one() == ("authenticated", None)


def test_a_service_session_of_a_scoped_one_is_another(maker: sessionmaker[Session], alice: Caller) -> None:
    scoped = scoped_session(maker)
    identify(scoped, alice)
    with service_session(scoped, reason="count", role="authenticated") as session:
        assert session.execute(CALLER).one() == ("authenticated", None)
    assert scoped.execute(CALLER).one() == ("authenticated", "alice")
    scoped.remove()


# Who hears of it


def test_the_hook_hears_who_is_bound_once_for_each_transaction(
    pool: Engine, issuer: Issuer, alice: Caller
) -> None:
    heard: list[tuple[Session, Any]] = []

    def on_bind(session: Session, connection: Connection, caller: object) -> None:
        assert connection.get_transaction() is not None
        heard.append((session, caller))

    maker = sessionmaker(pool)
    enforce_row_security(maker, verifier=verifier_of(issuer), on_bind=on_bind)
    with maker() as session:
        identify(session, alice)
        for _ in range(2):
            with session.begin_nested():
                session.execute(ANYTHING)
            session.execute(ANYTHING)
            session.commit()
    assert heard == [(session, alice)] * 2
    with maker(token=issuer.token("bob")) as session:
        session.execute(ANYTHING)
    (_, caller) = heard[-1]
    assert (caller.role, caller.subject) == ("authenticated", "bob")
    with service_session(maker, reason="repair") as session:
        session.execute(ANYTHING)
    assert heard[-1] == (session, ServiceAccess(reason="repair"))


@pytest.mark.exhaustive
def test_the_hook_may_write_in_the_same_transaction(pool: Engine, admin: Engine, alice: Caller) -> None:
    def leave_a_trace(session: Session, connection: Connection, caller: object) -> None:
        assert isinstance(caller, Caller)
        connection.execute(text("SET LOCAL application_name = 'traced'"))
        connection.execute(insert(Todo).values(task=f"audit {caller.subject}"))

    maker = sessionmaker(pool)
    enforce_row_security(maker, on_bind=leave_a_trace)
    with maker() as session:
        identify(session, alice)
        assert session.scalar(text("SHOW application_name")) == "traced"
        session.commit()
    assert all_todos(admin) == [("alice", "audit alice")]


@pytest.mark.exhaustive
def test_a_hook_that_fails_refuses_the_transaction(pool: Engine, todos: None, alice: Caller) -> None:
    failing = True

    def audit(*_: object) -> None:
        if failing:
            raise ConnectionError("the audit trail can't be written")

    maker = sessionmaker(pool)
    enforce_row_security(maker, on_bind=audit)
    with maker() as session:
        identify(session, alice)
        assert_refused(session, ConnectionError, "audit trail")
        session.rollback()
        failing = False
        assert session.scalars(TASKS).all() == ["alice's"]


def test_the_hook_is_not_called_for_who_is_refused(pool: Engine, issuer: Issuer) -> None:
    heard: list[object] = []
    maker = sessionmaker(pool)
    enforce_row_security(maker, verifier=verifier_of(issuer), on_bind=lambda *one: heard.append(one))
    for token in ("garbage", issuer.token("alice", expires_in=-60), None):
        with maker(token=token) as session, pytest.raises((InvalidToken, CallerRequired)):
            session.execute(ANYTHING)
    assert heard == []
