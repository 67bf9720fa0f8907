"""Callers and tokens expire by a time that a test freezes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import Verifier, enforce_row_security
from sqla_rls.exc import DeclarationError, ExpiredToken, InvalidToken
from sqla_rls.testing.access import Access, AsyncAccess
from sqla_rls.testing.clock import frozen_time
from sqla_rls.testing.issuer import Issuer
from tests.support.sessions import Todo
from tests.support.signing import Signed

THEN = datetime(2020, 2, 29, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def access(admin: Engine, todos: None) -> Iterator[Access]:
    with admin.connect() as connection, connection.begin() as transaction:
        yield Access(connection)
        transaction.rollback()


@pytest.mark.parametrize("at", [THEN, THEN.timestamp(), None])
def test_a_caller_expires_by_the_frozen_time(access: Access, at: datetime | float | None) -> None:
    with access.frozen(at) as time, access.as_caller("alice", expires_at=time.now + HOUR) as session:
        access.assert_visible(select(Todo.task), ["alice's"])
        session.commit()
        time.advance(HOUR - timedelta(seconds=1))
        access.assert_visible(select(Todo.task), ["alice's"])
        with pytest.raises(AssertionError, match="hasn't expired"):
            access.assert_expired()
        assert session.scalars(select(Todo.task)).all() == ["alice's"]
        time.advance(1)
        # The transaction in progress goes on; the next one is refused.
        assert session.scalars(select(Todo.task)).all() == ["alice's"]
        session.rollback()
        with pytest.raises(ExpiredToken):
            session.scalars(select(Todo.task)).all()
        access.assert_expired()


def test_a_failure_after_the_end_of_the_caller_has_its_reason(access: Access) -> None:
    with access.frozen() as time, access.as_caller("alice", expires_at=time.now + HOUR) as session:
        theirs = session.connection().scalar(text("SELECT 1"))
        assert theirs == 1
        time.advance(2 * HOUR)
        with pytest.raises(AssertionError, match="can see"):
            access.assert_hidden(session.scalars(select(Todo)).one())


def test_the_time_runs_again_after_the_block(access: Access) -> None:
    with access.frozen(THEN), access.frozen(THEN + HOUR) as time:
        assert time.now == THEN + HOUR
        time.move_to(THEN)
    with access.as_caller("alice", expires_at=datetime.now(UTC) + HOUR):
        access.assert_visible(select(Todo.task), ["alice's"])
    with access.as_caller("alice", expires_at=THEN):
        access.assert_expired()


def test_a_time_without_a_zone_is_refused(access: Access) -> None:
    with pytest.raises(DeclarationError, match="no time zone"), access.frozen(THEN.replace(tzinfo=None)):
        pass
    with (
        pytest.raises(DeclarationError, match="no time zone"),
        access.as_caller("alice", expires_at=THEN.replace(tzinfo=None)),
    ):
        pass


def test_a_token_expires_in_the_middle_of_a_session(admin: Engine, todos: None, issuer: Issuer) -> None:
    with admin.connect() as connection, connection.begin() as transaction, frozen_time(THEN) as time:
        factory = sessionmaker(bind=connection, join_transaction_mode="create_savepoint")
        enforce_row_security(factory, verifier=Verifier(issuer.provider, leeway=0), check_login_role=False)
        with factory(token=issuer.token("alice", expires_in=3600)) as session:
            assert session.scalars(select(Todo.task)).all() == ["alice's"]
            session.commit()
            time.advance(HOUR)
            with pytest.raises(ExpiredToken):
                session.scalars(select(Todo.task)).all()
            session.rollback()
        with factory(token=lambda: issuer.token("alice", expires_in=60)) as session:
            for _ in range(3):
                assert session.scalars(select(Todo.task)).all() == ["alice's"]
                session.commit()
                time.advance(HOUR)
        transaction.rollback()


def test_a_verifier_has_the_frozen_time(issuer: Issuer) -> None:
    verifier = Verifier(issuer.provider, leeway=5)
    token = issuer.token("alice")
    with frozen_time() as time:
        time.advance(-10)
        with pytest.raises(InvalidToken, match="isn't valid yet"):
            Verifier(issuer.provider, leeway=5).verify(token)
        time.advance(10 + 3600)
        assert verifier.verify(token).subject == "alice"
        time.advance(10)
        with pytest.raises(ExpiredToken):
            verifier.verify(token)
    assert verifier.verify(token).subject == "alice"


@pytest.mark.parametrize("years", [-3, 0, 3])
@pytest.mark.exhaustive
def test_a_database_that_verifies_callers_has_its_own_clock(signed: Signed, years: int) -> None:
    at = datetime.now(UTC) + timedelta(days=365 * years)
    with (
        signed.admin.connect() as connection,
        connection.begin() as transaction,
        frozen_time(at) as time,
    ):
        access = Access(connection, signing_key=signed.key)
        with access.as_caller("alice", expires_at=at + HOUR) as session:
            access.assert_visible(select(Todo.task), ["alice's"])
            session.commit()
            time.advance(HOUR - timedelta(seconds=5))
            access.assert_visible(select(Todo.task), ["alice's"])
            session.commit()
            time.advance(5)
            access.assert_expired()
        assert abs(connection.scalar(text("SELECT clock_timestamp()")) - datetime.now(UTC)) < HOUR
        transaction.rollback()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_asyncio_has_the_same(admin: Engine, todos: None, runner: asyncio.Runner, driver: str) -> None:
    async def work() -> None:
        engine = create_async_engine(admin.url.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)
        async with engine.connect() as connection, connection.begin() as transaction:
            access = AsyncAccess(connection)
            with access.frozen(THEN) as time:
                async with access.as_caller("alice", expires_at=THEN + HOUR) as session:
                    await access.assert_visible(select(Todo.task), ["alice's"])
                    await session.commit()
                    with pytest.raises(AssertionError, match="hasn't expired"):
                        await access.assert_expired()
                    time.advance(HOUR)
                    await access.assert_expired()
                    with pytest.raises(ExpiredToken):
                        await session.scalars(select(Todo.task))
                    await session.rollback()
            await transaction.rollback()
        await engine.dispose()

    runner.run(work())


OF_A_USER = """
import pytest
from datetime import timedelta
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqla_rls.testing.access import Access
from tests.support.sessions import Todo

URL = {url!r}

@pytest.fixture
def access():
    with create_engine(URL, poolclass=NullPool).connect() as connection, connection.begin() as transaction:
        yield Access(connection)
        transaction.rollback()

@pytest.mark.parametrize("number", range(8))
def test_expiry(access, number):
    with Session(access._connection, join_transaction_mode="create_savepoint") as session:
        session.add(Todo(user_id="alice", task=str(number)))
        session.commit()
    with access.frozen(1_000_000.0 * number) as time:
        with access.as_caller("alice", expires_at=time.now + timedelta(hours=1)):
            access.assert_visible(select(Todo.task), [str(number)])
            time.advance(3600)
            access.assert_expired()
    access.assert_isolated(Todo.metadata)
"""


@pytest.mark.exhaustive
def test_processes_of_xdist_do_not_meet(admin: Engine, tmp_path: Path) -> None:
    url = admin.url.render_as_string(hide_password=False)
    (tmp_path / "test_of_a_user.py").write_text(OF_A_USER.format(url=url), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "2", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "8 passed" in done.stdout, done.stdout + done.stderr
