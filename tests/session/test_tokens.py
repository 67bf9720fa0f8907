"""What a session reads that has a token in place of a caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.exc import (
    CallerRequired,
    DeclarationError,
    ExpiredToken,
    InvalidToken,
    KeysUnavailable,
    TransactionInProgress,
)
from sqla_rls.testing.issuer import Issuer
from tests.support.clocks import Clocks
from tests.support.sessions import (
    ANYTHING,
    BAD_TOKENS,
    CALLER,
    TASKS,
    Todo,
    all_todos,
    assert_refused,
    bindings,
    statements_of,
    verifier_of,
)
from tests.support.suite import first_and_rest

pytestmark = pytest.mark.sqlalchemy


@pytest.fixture
def by_token(pool: Engine, issuer: Issuer) -> sessionmaker[Session]:
    maker = sessionmaker(pool)
    enforce_row_security(maker, verifier=verifier_of(issuer), options=BindingOptions(transport="statement"))
    return maker


def test_a_token_is_who_it_says(
    by_token: sessionmaker[Session], issuer: Issuer, pool: Engine, todos: None
) -> None:
    sent = statements_of(pool)
    for name in ("alice", "bob"):
        with by_token(token=issuer.token(name)) as session:
            for _ in range(3):
                assert session.scalars(TASKS).all() == [f"{name}'s"]
                session.commit()
    assert bindings(sent) == 6
    assert issuer.fetches == 1


@pytest.mark.exhaustive
def test_a_policy_may_ask_for_any_claim(by_token: sessionmaker[Session], issuer: Issuer) -> None:
    with by_token(token=issuer.token("alice", claims={"org": {"id": "ä"}})) as session:
        assert session.scalar(text("SELECT auth.session() -> 'org' ->> 'id'")) == "ä"


@first_and_rest("tokens", BAD_TOKENS.items())
def test_a_bad_token_reads_nothing(
    by_token: sessionmaker[Session],
    issuer: Issuer,
    tokens: list[tuple[str, Callable[[Issuer], Any]]],
    subtests: pytest.Subtests,
) -> None:
    for name, forge in tokens:
        token = forge(issuer)
        with subtests.test(name), by_token(token=token) as session:
            refusal = assert_refused(session, InvalidToken)
            assert not token or str(token) not in f"{refusal} {refusal!r}"
            session.rollback()
            assert_refused(session, InvalidToken)


@pytest.mark.exhaustive
def test_a_token_of_another_project_reads_nothing(by_token: sessionmaker[Session]) -> None:
    with Issuer() as other, by_token(token=other.token("alice")) as session:
        assert_refused(session, InvalidToken, "issuer")


@pytest.mark.exhaustive
def test_an_expired_token_says_so(by_token: sessionmaker[Session], issuer: Issuer) -> None:
    with by_token(token=issuer.token("alice", expires_in=-60)) as session:
        assert_refused(session, ExpiredToken, "expired")


@pytest.mark.exhaustive
def test_a_token_that_expires_is_refused_in_the_next_transaction(
    pool: Engine, issuer: Issuer, clocks: Clocks, todos: None
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, verifier=verifier_of(issuer))
    with maker(token=issuer.token("alice", expires_in=60)) as session:
        assert session.scalars(TASKS).all() == ["alice's"]
        clocks.ahead = 60
        assert session.scalars(TASKS).all() == ["alice's"]
        session.commit()
        assert_refused(session, ExpiredToken)


def test_without_keys_nothing_is_read(by_token: sessionmaker[Session], issuer: Issuer) -> None:
    token = issuer.token("alice")
    issuer.close()
    with by_token(token=token) as session:
        assert_refused(session, KeysUnavailable)


@pytest.mark.exhaustive
def test_a_caller_takes_the_place_of_the_token(
    by_token: sessionmaker[Session], issuer: Issuer, bob: Caller
) -> None:
    with by_token(token=issuer.token("alice")) as session:
        assert session.execute(CALLER).one() == ("authenticated", "alice")
        with pytest.raises(TransactionInProgress):
            identify(session, bob)
        session.commit()
        identify(session, bob)
        assert session.execute(CALLER).one() == ("authenticated", "bob")


@pytest.mark.exhaustive
def test_without_a_token_nobody_is_identified(by_token: sessionmaker[Session], alice: Caller) -> None:
    with by_token(token=None) as session:
        assert_refused(session, CallerRequired)
        session.rollback()
        identify(session, alice)
        assert session.execute(CALLER).one() == ("authenticated", "alice")


def test_a_closed_session_forgets_its_token(by_token: sessionmaker[Session], issuer: Issuer) -> None:
    session = by_token(token=issuer.token("alice"))
    session.execute(ANYTHING)
    session.close()
    with session:
        assert_refused(session, CallerRequired)


@pytest.mark.exhaustive
def test_a_block_may_commit_at_its_end(
    by_token: sessionmaker[Session], issuer: Issuer, admin: Engine
) -> None:
    token = issuer.token("alice")
    with by_token(token=token) as session, session.begin():
        session.add(Todo(task="one"))
    with pytest.raises(DeclarationError, match=r"with SessionLocal\(token=…\) as session, session.begin\(\)"):
        by_token.begin(token=token)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with by_token.begin() as session:
        identify(session, Caller(role="authenticated", subject="alice"))
        session.add(Todo(task="two"))
    assert all_todos(admin) == [("alice", "one"), ("alice", "two")]


def test_a_token_needs_a_verifier(maker: sessionmaker[Session], issuer: Issuer) -> None:
    with pytest.raises(DeclarationError, match="needs a verifier"):
        maker(token=issuer.token("alice"))
