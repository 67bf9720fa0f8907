"""What is bound to a transaction, that nothing of it stays, and what is refused."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import TypeAlias

import pytest
from sqlalchemy import URL, Engine, create_engine, select, text
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from sqla_rls.exc import BindingError, ExpiredToken, InvalidToken, UnsupportedTransaction
from sqla_rls.log import Unlogged
from sqla_rls.session.binding import bind
from sqla_rls.session.options import SessionOptions
from sqla_rls.session.plan import plan_of
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import Server
from tests.support.clocks import Clocks
from tests.support.sessions import (
    ANYTHING,
    CALLER,
    NOBODY,
    Sessions,
    Todo,
    assert_refused,
    bindings,
    by_statement,
    statements_of,
    verifier_of,
)

pytestmark = pytest.mark.sqlalchemy

Unswitched: TypeAlias = Callable[[str | None, Caller], Session]

SECRET = "alice@example.com"
CURRENT_CLAIMS = text("SELECT current_setting('request.jwt.claims', true)")


@pytest.fixture
def somebody() -> Caller:
    """With claims that are nobody else's business."""
    return Caller(role="authenticated", subject="alice", claims={"email": SECRET, "level": ["ä", 2, None]})


def told_by(error: BaseException | None) -> str:
    """All that an error tells, and those that led to it, whether or not Python shows them."""
    if error is None:
        return ""
    own = "".join(traceback.format_exception(error)) + repr(error)
    return own + told_by(error.__cause__) + told_by(error.__context__)


OPTIONS = SessionOptions(binding=BindingOptions(transport="statement"))


# What is bound


def test_role_and_claims_are_bound(pool: Engine, somebody: Caller) -> None:
    with pool.begin() as connection:
        bind(connection, somebody, plan_of(connection, OPTIONS))
        assert connection.execute(CALLER).one() == ("authenticated", "alice")
        claims = connection.scalar(text("SELECT auth.session()"))
        assert claims == {"sub": "alice", "email": SECRET, "level": ["ä", 2, None]}


@pytest.mark.exhaustive
def test_anonymous_is_a_role_without_claims(pool: Engine, somebody: Caller) -> None:
    with pool.begin() as connection:
        bind(connection, somebody, plan_of(connection, OPTIONS))
        bind(connection, Caller.anonymous(), plan_of(connection, OPTIONS))
        assert connection.execute(CALLER).one() == ("anonymous", None)


@by_statement
def test_a_transaction_costs_one_statement_more(pool: Engine, sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        session.execute(ANYTHING)
        session.commit()
        sent = statements_of(pool)
        for _ in range(3):
            session.execute(select(Todo.task))
            session.execute(select(Todo.id))
            session.commit()
    assert len(sent) == 9
    assert [bindings([statement]) for statement in sent] == [1, 0, 0] * 3


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "options",
    [
        {"isolation_level": "SERIALIZABLE"},
        {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
        {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True, "postgresql_deferrable": True},
    ],
)
def test_transactions_of_any_isolation_are_bound(
    sessions: Sessions, alice: Caller, options: dict[str, object]
) -> None:
    with sessions(alice) as session:
        connection = session.connection(execution_options=options)
        assert connection.execute(CALLER).one() == ("authenticated", "alice")
        level = connection.scalar(text("SHOW transaction_isolation"))
        assert str(level).upper() == options["isolation_level"]


# What stays


def commit(session: Session) -> None:
    session.commit()


def rollback(session: Session) -> None:
    session.rollback()


def fail(session: Session) -> None:
    with pytest.raises(Exception, match="division by zero"):
        session.execute(text("SELECT 1 / 0"))
    session.close()


def forget(session: Session) -> None:
    session.close()


def rollback_to_savepoint(session: Session) -> None:
    savepoint = session.begin_nested()
    session.execute(CALLER)
    savepoint.rollback()
    session.commit()


@pytest.mark.exhaustive
@pytest.mark.parametrize("end", [commit, rollback, fail, forget, rollback_to_savepoint])
def test_nothing_outlives_the_transaction(
    pool: Engine, sessions: Sessions, somebody: Caller, end: Callable[[Session], None]
) -> None:
    backend = text("SELECT pg_backend_pid()")
    session = sessions(somebody)
    before = session.scalar(backend)
    assert session.execute(CALLER).one() == ("authenticated", "alice")
    end(session)
    session.close()

    with pool.connect() as connection:
        assert connection.scalar(backend) == before
        assert connection.execute(CALLER).one() == NOBODY
        assert connection.scalar(CURRENT_CLAIMS) in (None, "")
        with pytest.raises(Exception, match="permission denied"):
            connection.execute(select(Todo.task))


def test_the_next_caller_is_not_the_last(
    pool: Engine, sessions: Sessions, somebody: Caller, bob: Caller
) -> None:
    expected = [
        (somebody, ("authenticated", "alice")),
        (bob, ("authenticated", "bob")),
        (Caller.anonymous(), ("anonymous", None)),
        (Caller(role="authenticated"), ("authenticated", None)),
    ]
    for caller, bound in expected:
        with sessions(caller) as session:
            assert session.execute(CALLER).one() == bound


# What is refused


def test_a_caller_that_has_expired_is_refused(sessions: Sessions) -> None:
    with sessions(Caller(role="authenticated", subject="alice", expires_at=time.time() - 1)) as session:
        assert_refused(session, ExpiredToken)


def test_a_caller_that_expires_is_refused_in_the_next_transaction(sessions: Sessions, clocks: Clocks) -> None:
    expires_at = time.time() + 60
    with sessions(Caller(role="authenticated", subject="alice", expires_at=expires_at)) as session:
        session.execute(select(Todo.task))
        session.commit()
        clocks.ahead = 60
        assert_refused(session, ExpiredToken)


def test_autocommit_is_refused_from_the_engine(url: URL, alice: Caller) -> None:
    for engine in (
        create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT"),
        create_engine(url, poolclass=NullPool).execution_options(isolation_level="AUTOCOMMIT"),
        create_engine(url, poolclass=NullPool, execution_options={"isolation_level": "AUTOCOMMIT"}),
        create_engine(url, poolclass=NullPool, connect_args={"autocommit": True}),
    ):
        maker = sessionmaker(engine)
        enforce_row_security(maker, options=BindingOptions(transport="statement"))
        with maker() as session:
            identify(session, alice)
            assert_refused(session, UnsupportedTransaction, "AUTOCOMMIT")


@by_statement
def test_autocommit_is_refused_from_the_session(sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        with pytest.raises(UnsupportedTransaction, match="AUTOCOMMIT"):
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(SQLAlchemyError):
            session.execute(ANYTHING)
        session.rollback()
        assert session.execute(CALLER).one() == ("authenticated", "alice")
        with pytest.raises(InvalidRequestError):
            session.connection().execution_options(isolation_level="AUTOCOMMIT")


def test_two_phase_is_refused(pool: Engine, alice: Caller) -> None:
    maker = sessionmaker(pool, twophase=True)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        assert_refused(session, UnsupportedTransaction, "twophase")


def test_sqlite_is_refused(alice: Caller) -> None:
    engine = create_engine("sqlite://")
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        assert_refused(session, UnsupportedTransaction, "sqlite")
    engine.dispose()


@pytest.mark.parametrize(("role", "hint"), [("nobody_has_it", "Create it"), ("pg_monitor", "GRANT it")])
def test_a_role_that_cannot_be_bound_names_the_cure_and_no_claims(
    sessions: Sessions, bob: Caller, role: str, hint: str
) -> None:
    with sessions(Caller(role=role, subject="alice", claims={"email": SECRET})) as session:
        refusal = assert_refused(session, BindingError, f"{role}.*{hint}")
    assert SECRET not in told_by(refusal)
    with sessions(bob) as session:
        assert session.execute(CALLER).one() == ("authenticated", "bob")


@pytest.mark.exhaustive
def test_a_role_that_cannot_be_bound_names_no_token(
    pool: Engine, issuer: Issuer, transport: Transport
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(
        maker, verifier=verifier_of(issuer, role="nobody_has_it"), options=BindingOptions(transport=transport)
    )
    token = issuer.token("alice")
    with maker(token=token) as session:
        refusal = assert_refused(session, BindingError)
    assert SECRET not in told_by(refusal)
    assert token not in told_by(refusal)


# A login role that doesn't switch


@pytest.fixture
def unswitched(server: Server, url: URL) -> Unswitched:
    """``unswitched(role, alice)``: a session of Alice that logs in as *role*, and stays so."""

    def open_session(role: str | None, caller: Caller) -> Session:
        login = server.url(url.database, user=role, password=role)
        maker = sessionmaker(create_engine(login, poolclass=NullPool))
        enforce_row_security(maker, options=BindingOptions(set_role=False))
        session = maker()
        identify(session, caller)
        return session

    return open_session


def test_who_logs_in_as_the_role_itself_need_not_switch(unswitched: Unswitched, todos: None) -> None:
    alice = Caller(role="authenticated_login", subject="alice")
    with unswitched("authenticated_login", alice) as session:
        assert session.execute(CALLER).one() == ("authenticated_login", "alice")
        assert session.scalars(select(Todo.task)).all() == ["alice's"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("role", [None, "app", "authenticated_login"])
def test_who_logs_in_as_another_role_is_refused(
    unswitched: Unswitched, alice: Caller, role: str | None
) -> None:
    with unswitched(role, alice) as session:
        assert_refused(session, BindingError, "set_role=True")


# What is logged


@pytest.mark.exhaustive
def test_the_debug_log_of_a_joined_connection_holds_no_claims(
    url: URL, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    engine = create_engine(url, poolclass=NullPool, echo="debug")
    maker = sessionmaker(engine)
    enforce_row_security(maker, verifier=verifier_of(issuer))
    with engine.connect() as connection, connection.begin():
        claims = Unlogged(f'{{"email": "{SECRET}"}}')
        connection.execute(
            text("SELECT set_config('request.jwt.claims', :claims, true) = ''"), {"claims": claims}
        )
        with maker(bind=connection, token=issuer.token("alice", claims={"email": SECRET})) as session:
            session.execute(select(Todo.task))
    assert "current_setting" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_logs_hold_neither_token_nor_claims(
    url: URL, issuer: Issuer, caplog: pytest.LogCaptureFixture, level: int, transport: Transport
) -> None:
    caplog.set_level(level)
    engine = create_engine(url, poolclass=NullPool, echo="debug" if level == logging.DEBUG else True)
    maker = sessionmaker(engine)
    enforce_row_security(maker, verifier=verifier_of(issuer), options=BindingOptions(transport=transport))
    token = issuer.token("alice")
    with maker(token=token) as session:
        session.execute(select(Todo.task))
        session.commit()
    with maker(token=token + "x") as session, pytest.raises(InvalidToken):
        session.execute(select(Todo.task))
    assert "SELECT todos.task" in caplog.text
    assert SECRET not in caplog.text
    assert token not in caplog.text
