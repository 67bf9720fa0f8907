"""Sessions whose callers the database verifies: by pg_session_jwt, a stand-in, or the portable functions."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, Verifier, enforce_row_security, jwt_claim, service_session
from sqla_rls.driver.base import Transport
from sqla_rls.exc import ExpiredToken
from sqla_rls.testing.issuer import Issuer
from tests.support.clocks import Clocks
from tests.support.sessions import (
    ALICE_OF_MANY_GROUPS,
    CALLER,
    GROUPS,
    NOBODY,
    TASKS,
    Document,
    Notice,
    Sessions,
    Todo,
    assert_refused,
)
from tests.support.verified import CLAIMS, TOKEN, UNSIGNED, USER, by_one_transport


def test_each_reads_and_writes_what_is_their_own(
    sessions: Sessions, todos: None, alice: Caller, bob: Caller
) -> None:
    for person, name in ((alice, "alice"), (bob, "bob"), (alice, "alice")):
        with sessions(person) as session:
            assert session.scalar(USER) == name
            assert session.execute(CALLER).one() == ("authenticated", name)
            assert session.scalars(TASKS).all() == [f"{name}'s"]
            session.add(Todo(task="another"))
            session.flush()
            assert session.scalars(select(Todo.user_id)).all() == [name, name]
            session.rollback()


@pytest.mark.exhaustive
@by_one_transport
def test_the_database_sees_the_subject_of_the_claim_that_the_provider_names(
    pool: Engine, issuer: Issuer, key: str | None, transport: Transport
) -> None:
    maker = sessionmaker(pool)
    verifier = Verifier(replace(issuer.provider, subject_claim="external_id"))
    enforce_row_security(
        maker,
        verifier=verifier,
        signing_key=key,
        options=BindingOptions(transport=transport, signing="required"),
    )
    ids = [str(UUID(int=number)) for number in (1, 2)]
    for id_ in ids:
        with maker(token=issuer.token("user_2x", claims={"external_id": id_})) as session:
            assert session.scalar(USER) == id_
            assert session.scalar(select(jwt_claim("provider_sub"))) == "user_2x"
            session.add(Document(title=id_))
            session.commit()
            assert session.scalars(select(Document.title)).all() == [id_]
            assert session.scalars(select(Document.user_id)).all() == [UUID(id_)]


@pytest.mark.exhaustive
def test_nobody_in_particular_is_signed_for_too(
    sessions: Sessions, admin: Engine, alice: Caller, todos: None
) -> None:
    with Session(admin) as owner:
        owner.add(Notice(message="hello"))
        owner.commit()
    with sessions(alice) as session:
        session.execute(
            text("SELECT set_config('pg_session_jwt.jwt', current_setting('pg_session_jwt.jwt'), false)")
        )
        session.commit()
    with sessions(Caller.anonymous()) as session:
        assert session.scalars(select(Notice.message)).all() == ["hello"]
        assert session.scalar(USER) is None
        assert session.scalar(TOKEN)
        with pytest.raises(ProgrammingError, match="permission denied"):
            session.scalars(TASKS)


@pytest.mark.exhaustive
def test_a_service_session_is_nobody(maker: sessionmaker[Session], sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        assert session.scalar(USER) == "alice"
    with service_session(maker, reason="nightly report", role="authenticated") as session:
        assert session.scalar(USER) is None
        assert session.scalars(TASKS).all() == []


@pytest.mark.exhaustive
def test_the_claims_are_those_that_were_verified(sessions: Sessions) -> None:
    claims = {
        "org": {"id": "o1", "roles": ["admin"]},
        "iat": 5,
        "nbf": 5.5,
        "exp": 7,
        "pid": 1,
        "email": "ü@x",
    }
    with sessions(Caller(role="authenticated", subject="alice", claims=claims)) as session:
        seen = session.scalar(CLAIMS)
    for of_the_token in ("exp", "nbf", "pid", "jti"):
        claims.pop(of_the_token, None)
        seen.pop(of_the_token, None)
    assert seen == {"sub": "alice", **claims}


@pytest.mark.exhaustive
def test_a_caller_may_have_many_claims(sessions: Sessions, todos: None, bob: Caller) -> None:
    for _ in range(2):
        with sessions(ALICE_OF_MANY_GROUPS) as session:
            assert session.scalars(TASKS).all() == ["alice's"]
            assert session.scalar(CLAIMS)["groups"] == GROUPS
        with sessions(bob) as session:
            assert session.scalars(TASKS).all() == ["bob's"]


@by_one_transport
def test_nothing_stays_after_the_transaction(sessions: Sessions, pool: Engine, alice: Caller) -> None:
    with sessions(alice) as session:
        assert session.scalar(USER) == "alice"
        session.commit()
    with pool.connect() as connection:
        assert connection.execute(CALLER).one() == NOBODY
        assert connection.scalar(TOKEN) in ("", None)


@pytest.mark.exhaustive
def test_the_token_is_used_again_while_the_same_person_stays(
    sessions: Sessions, alice: Caller, bob: Caller
) -> None:
    def token(person: Caller) -> Any:
        with sessions(person) as session:
            return session.scalar(TOKEN)

    first = token(alice)
    assert token(alice) == first
    assert token(bob) != first
    more = Caller(role="authenticated", subject="alice", claims={"admin": True})
    assert token(more) != token(alice)


@pytest.mark.exhaustive
def test_a_caller_ends_when_it_does_whatever_the_database_remembers(
    sessions: Sessions, clocks: Clocks
) -> None:
    expires_at = time.time() + 60
    with sessions(Caller(role="authenticated", subject="alice", expires_at=expires_at)) as session:
        assert session.scalar(USER) == "alice"
        session.commit()
        clocks.ahead = 60
        assert_refused(session, ExpiredToken)


@pytest.mark.exhaustive
@by_one_transport
def test_a_direct_connection_has_no_claims_to_empty(sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        driver_connection: Any = session.connection().connection.driver_connection
        assert "pg_session_jwt.jwt" in driver_connection.binding.names
        assert "request.jwt.claims" not in driver_connection.binding.names
        assert session.scalar(UNSIGNED) == ""
