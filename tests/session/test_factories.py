"""Which factories of sessions are enforced, and what they keep."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.exc import BindingError, CallerRequired, DeclarationError
from sqla_rls.testing.issuer import Issuer
from tests.support.sessions import ANYTHING, CALLER, NOBODY, TASKS, assert_refused, verifier_of

pytestmark = pytest.mark.sqlalchemy


def test_a_plain_session_cannot_be_identified(pool: Engine, alice: Caller) -> None:
    for session in (Session(pool), sessionmaker(pool)(), scoped_session(sessionmaker(pool))):
        with pytest.raises(BindingError, match="enforce_row_security"):
            identify(session, alice)


@pytest.mark.exhaustive
@pytest.mark.parametrize("who", [None, "alice", {"sub": "alice"}])
def test_only_a_caller_identifies(maker: sessionmaker[Session], who: Any) -> None:
    with maker() as session:
        with pytest.raises(CallerRequired, match="takes a Caller"):
            identify(session, who)
        assert_refused(session, CallerRequired)


def test_enforcing_twice_is_a_mistake(maker: sessionmaker[Session]) -> None:
    for factory in (maker, scoped_session(maker), sessionmaker(class_=maker.class_)):
        with pytest.raises(DeclarationError, match="already"):
            enforce_row_security(factory)


@pytest.mark.exhaustive
def test_other_factories_are_left_alone(maker: sessionmaker[Session], pool: Engine) -> None:
    with sessionmaker(pool)() as session:
        assert session.execute(CALLER).one() == NOBODY


class Counting(Session):
    """An application's own."""

    def count(self) -> int:
        return len(self.scalars(TASKS).all())


@pytest.mark.exhaustive
def test_a_session_class_of_ones_own_goes_on(pool: Engine, todos: None, alice: Caller) -> None:
    maker = sessionmaker(pool, class_=Counting)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        assert isinstance(session, Counting)
        assert session.count() == 1
    with maker.begin() as session:
        identify(session, alice)
        assert session.count() == 1
    with Counting(pool) as plain:
        assert plain.execute(CALLER).one() == NOBODY


@pytest.mark.exhaustive
def test_listeners_of_the_factory_go_on_and_are_bound(pool: Engine, alice: Caller) -> None:
    maker = sessionmaker(pool)
    heard: list[object] = []

    def listen() -> None:
        @event.listens_for(maker, "after_begin")
        def after_begin(session: Session, transaction: object, connection: Connection) -> None:
            heard.append(connection.execute(CALLER).one())

        @event.listens_for(maker, "after_commit")
        def after_commit(session: Session) -> None:
            heard.append("commit")

    listen()
    enforce_row_security(maker)
    listen()
    with maker() as session:
        identify(session, alice)
        session.execute(ANYTHING)
        session.commit()
    assert heard == [("authenticated", "alice")] * 2 + ["commit"] * 2


@pytest.mark.exhaustive
def test_a_listener_that_fails_leaves_nothing_unbound(pool: Engine, alice: Caller) -> None:
    maker = sessionmaker(pool)

    @event.listens_for(maker, "after_begin")
    def after_begin(*_: object) -> None:
        raise ZeroDivisionError

    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        with pytest.raises(ZeroDivisionError):
            session.execute(ANYTHING)
        assert session.execute(CALLER).one() == ("authenticated", "alice")


@pytest.mark.exhaustive
def test_a_scoped_session_is_one_per_scope(
    maker: sessionmaker[Session], todos: None, alice: Caller, bob: Caller
) -> None:
    scope = ["first"]
    scoped = scoped_session(maker, scopefunc=lambda: scope[0])
    identify(scoped, alice)
    assert scoped.scalars(TASKS).all() == ["alice's"]
    scoped.commit()
    scope[0] = "second"
    with pytest.raises(CallerRequired):
        scoped.execute(ANYTHING)
    scoped.rollback()
    identify(scoped, bob)
    assert scoped.scalars(TASKS).all() == ["bob's"]
    scoped.remove()
    with pytest.raises(CallerRequired):
        scoped.execute(ANYTHING)
    scoped.remove()
    scope[0] = "first"
    assert scoped.scalars(TASKS).all() == ["alice's"]
    scoped.remove()


@pytest.mark.exhaustive
def test_a_scoped_session_may_be_enforced_itself(pool: Engine, todos: None, issuer: Issuer) -> None:
    scoped = scoped_session(sessionmaker(pool))
    enforce_row_security(scoped, verifier=verifier_of(issuer))
    with scoped(token=issuer.token("bob")):
        assert scoped.scalars(TASKS).all() == ["bob's"]
    scoped.remove()
