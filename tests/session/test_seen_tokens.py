"""Whoever logs in as the application sees what its other connections send, but no token that is of use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from json import loads

import psycopg
import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from sqla_rls import Caller
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from sqla_rls.testing.postgres import Server
from sqla_rls.testing.proxy import Proxy
from tests.support.base64url import decoded
from tests.support.line import HOWS, How, Line, hows

pytestmark = pytest.mark.exhaustive

POLLS = 300
BY_PARAMETERS = [
    *("psycopg, pipeline", "psycopg, one-shot", "psycopg, statement"),
    *("asyncpg, pipeline", "asyncpg, statement"),
]
WHO = text("SELECT auth.user_id(), pg_backend_pid()")
ACTIVITY = "SELECT query FROM pg_stat_activity WHERE usename = 'app' AND pid <> pg_backend_pid()"


@dataclass
class Signed:
    """A database that verifies callers, and its key."""

    url: URL
    key: str


@pytest.fixture(scope="module")
def signed(server: Server, template: str) -> Iterator[Signed]:
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(CreateAuthFunctions(signed=True))
    with engine.begin() as connection:
        connection.execute(text("GRANT USAGE ON SCHEMA auth TO authenticated"))
        key = rotate_signing_key(connection)
    yield Signed(server.url(name, user="app", password="app"), key)
    server.drop_database(name)


def tokens_seen(line: Line, signed: Signed, who: Caller) -> set[str]:
    """What *POLLS* looks at the activity find, while *line* is in use."""
    found: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        conninfo = signed.url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                for _ in range(POLLS):
                    found.update(row[0] for row in connection.execute(ACTIVITY))
        finally:
            done.set()

    def work(session: Session) -> None:
        user_id, pid = session.execute(WHO).one()
        assert (user_id, pid > 0) == (who.subject, True)
        session.commit()

    line.visit(who, work)
    watcher = threading.Thread(target=watch)
    watcher.start()
    while not done.is_set():
        line.visit(who, work)
    watcher.join()
    assert any("auth.user_id" in query for query in found)
    return {query.partition("E'eyJ")[2].partition("'")[0] for query in found if "eyJ" in query}


def tokens_seen_over_a_network(signed: Signed, runner: asyncio.Runner, who: Caller, how: How) -> set[str]:
    assert signed.url.port is not None
    with Proxy(str(signed.url.host), signed.url.port, delay=0.0005) as proxy:
        url = signed.url.set(host=proxy.host, port=proxy.port)
        line = Line(url, how, runner, signing="required", signing_key=signed.key)
        seen = tokens_seen(line, signed, who)
        line.hang_up()
    return seen


@pytest.mark.parametrize("how", hows(BY_PARAMETERS))
def test_a_token_in_a_parameter_is_never_seen(
    signed: Signed, runner: asyncio.Runner, alice: Caller, how: How
) -> None:
    assert tokens_seen_over_a_network(signed, runner, alice, how) == set()


@pytest.mark.parametrize("how", hows(["psycopg, with_begin", "asyncpg, with_begin"]))
def test_one_in_a_text_is_and_is_good_for_that_connection_only(
    signed: Signed, runner: asyncio.Runner, alice: Caller, how: How
) -> None:
    seen = tokens_seen_over_a_network(signed, runner, alice, how)
    assert seen
    for token in seen:
        payload = token.split(".")[1]
        assert "pid" in loads(decoded(payload))


#: psycopg's one-shot may wait there for a connection.
POOLED = [name for name, how in HOWS.items() if how.driver == "asyncpg" or not how.autocommit]


@pytest.mark.parametrize("how", hows(POOLED))
def test_one_that_is_good_for_all_connections_of_a_pooler_is_never_seen(
    pgbouncer: None, signed: Signed, runner: asyncio.Runner, alice: Caller, how: How
) -> None:
    with PgBouncer(signed.url, pool_size=1) as bouncer:
        assert bouncer.url.port is not None
        with Proxy(str(bouncer.url.host), bouncer.url.port, delay=0.0005) as proxy:
            url = bouncer.url.set(host=proxy.host, port=proxy.port)
            arguments = CONNECT_ARGS[how.driver]
            line = Line(url, how, runner, arguments, signing="required", signing_key=signed.key)
            assert tokens_seen(line, signed, alice) == set()
            line.hang_up()
