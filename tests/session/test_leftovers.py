"""What alice leaves on a connection, by SQL that she has injected, does nothing to bob, who comes next."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import pytest
from sqlalchemy import URL, Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from sqla_rls import Caller
from sqla_rls.driver import asyncpg, psycopg
from sqla_rls.driver.base import Reset
from sqla_rls.exc import RowSecurityError
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from sqla_rls.testing.postgres import Server
from tests.support.line import HOWS, How, Line, hows
from tests.support.sessions import TASKS, Todo
from tests.support.suite import first_and_rest, table
from tests.tables.leftovers import LEFTOVERS, Leftover, Look, Verdict

pytestmark = pytest.mark.every_postgres

BACKEND = text("SELECT pg_catalog.pg_backend_pid()")


RESETS: tuple[Reset, ...] = get_args(Reset)


def inject(session: Session, sql: tuple[str, ...], how: How) -> int:
    """What alice's SQL leaves; the server process that she leaves it on."""
    backend = session.scalar(BACKEND)
    for statement in sql:
        session.execute(text(statement))
    if how.driver == "asyncpg" and how.transport != "statement":
        # A COMMIT in her text would end the connection.
        session.commit()
    elif not how.autocommit:
        session.execute(text("COMMIT"))
        session.rollback()
    assert isinstance(backend, int)
    return backend


def found_by(look: Look, admin: Engine) -> Callable[[Session], tuple[object, int]]:
    def visit(session: Session) -> tuple[object, int]:
        try:
            found = look(session, admin)
        except (SQLAlchemyError, UnicodeError) as error:
            if isinstance(error, RowSecurityError):
                raise
            found = type(error)
            session.rollback()
        backend = session.scalar(BACKEND) or 0
        # psycopg forgets what it has prepared when a transaction is rolled back.
        session.commit()
        return found, backend

    return visit


def verdict(leftover: Leftover, alices: Line, bobs: Line, admin: Engine) -> Verdict:
    """What happens to bob, whose connection was alice's."""
    alice, bob = (Caller(role="authenticated", subject=name) for name in ("alice", "bob"))
    look = found_by(leftover.look, admin)
    try:
        before = [bobs.visit(bob, look) for _ in range(leftover.looks)]
        backend = alices.visit(alice, lambda session: inject(session, leftover.sql, alices.how))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "42501":
            raise
        return "denied"
    after = bobs.visit(bob, look)
    assert before[-1][1] == backend
    if after[1] != backend:
        assert alices is bobs
        assert alices.how.driver in leftover.ends_connections_of
        return "closed"
    return "closed" if after == before[-1] else "open"


@pytest.fixture(scope="module")
def place(server: Server, template: str) -> Iterator[str]:
    """A database for all that is left behind, with a todo of each."""
    name = server.create_database(template=template)
    engine = create_engine(server.url(name), poolclass=NullPool)
    with Session(engine) as session:
        session.add_all([Todo(user_id=who, task=f"{who}'s") for who in ("alice", "bob")])
        session.commit()
    yield name
    server.drop_database(name)


@pytest.fixture(scope="module")
def superuser(server: Server, place: str) -> Iterator[Engine]:
    engine = create_engine(server.url(place))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def lines(server: Server, place: str) -> Iterator[dict[tuple[str, str], Line]]:
    url = server.url(place, user="app", password="app")
    with asyncio.Runner() as runner:
        lines: dict[tuple[str, str], Line] = {
            (how, reset): Line(url, HOWS[how], runner, reset=reset)
            for how in HOWS
            for reset in RESETS
            if not (reset == "all" and HOWS[how].transport == "statement")
        }
        yield lines
        for line in lines.values():
            line.hang_up()


@pytest.fixture(autouse=True)
def nothing_stored(superuser: Engine) -> Iterator[None]:
    yield
    with superuser.begin() as connection:
        connection.execute(text("SELECT lo_unlink(oid) FROM pg_largeobject_metadata"))


def expected(leftover: Leftover, how: How, reset: str) -> Verdict:
    verdicts = leftover.verdicts
    if reset == "all":
        return verdicts.reset_all
    if how.driver in leftover.ends_connections_of:
        return "closed"
    if reset == "none":
        return verdicts.reset_none
    if how.autocommit:
        return verdicts.one_shot
    return verdicts.statement if how.transport == "statement" else verdicts.with_begin


@pytest.mark.exhaustive
@pytest.mark.parametrize("leftover", LEFTOVERS, ids=[leftover.name for leftover in LEFTOVERS])
def test_what_alice_leaves_does_to_bob_what_the_table_says(
    lines: dict[tuple[str, str], Line], superuser: Engine, leftover: Leftover
) -> None:
    surprises = {}
    for (how, reset), line in lines.items():
        found = verdict(leftover, line, line, superuser)
        if found != expected(leftover, HOWS[how], reset):
            surprises[how, reset] = found
        line.hang_up()
    assert surprises == {}


CURED = [leftover for leftover in LEFTOVERS if leftover.hint_sql]


@table("leftover", CURED, ids=[leftover.name for leftover in CURED])
@pytest.mark.exhaustive
def test_what_else_closes_it_does(
    url: URL, admin: Engine, todos: None, runner: asyncio.Runner, leftover: Leftover
) -> None:
    with admin.begin() as connection:
        connection.execute(text(leftover.hint_sql.format(database=f'"{url.database}"')))
    line = Line(url, HOWS["psycopg, with_begin"], runner, reset="none")
    assert verdict(leftover, line, line, admin) == "denied"
    line.hang_up()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "how", [HOWS["psycopg, with_begin"], HOWS["asyncpg, with_begin"], HOWS["asyncpg, pipeline"]]
)
def test_nor_does_it_where_the_driver_prepares_nothing(
    url: URL, admin: Engine, todos: None, runner: asyncio.Runner, how: How
) -> None:
    (leftover,) = [leftover for leftover in LEFTOVERS if "prepare" in leftover.hint]
    arguments = {"psycopg": psycopg.UNPREPARED, "asyncpg": asyncpg.UNPREPARED}[how.driver]
    line = Line(url, how, runner, arguments, reset="none")
    assert verdict(leftover, line, line, admin) == "closed"
    line.hang_up()


# The document


DOCUMENT = Path(__file__).parents[2] / "docs" / "security" / "leftovers.md"
HEADINGS = (
    "Leftover",
    '`reset="none"`',
    "with_begin, pipeline",
    "one-shot",
    "statement",
    '`reset="all"`',
)


def document() -> list[str]:
    lines = [[*HEADINGS, "Also closed by"], ["---", *[":-:"] * 5, "---"]]
    for leftover in LEFTOVERS:
        marks = ["**open**" if verdict == "open" else verdict for verdict in leftover.verdicts]
        sql = f"`{leftover.hint_sql.format(database='…')}`" if leftover.hint_sql else ""
        lines.append([leftover.name, *marks, sql or leftover.hint])
    return [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines]


def test_the_document_says_the_same() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"| {HEADINGS[0]} "))
    end = lines.index("", first)
    if os.environ.get("SQLA_RLS_WRITE_CASES"):
        DOCUMENT.write_text("\n".join([*lines[:first], *document(), *lines[end:], ""]), encoding="utf-8")
    else:
        assert lines[first:end] == document()


# Through a pooler, where the next one is any client's


# Not psycopg's one-shot: it ends a pipeline with a Flush, for which PgBouncer 1.18 may lend a connection for
# good.
POOLED = [
    *("psycopg, with_begin", "psycopg, pipeline"),
    *("asyncpg, with_begin", "asyncpg, pipeline", "asyncpg, one-shot"),
]
CLOSED = [leftover for leftover in LEFTOVERS if leftover.verdicts[:2] == ("open", "closed") or leftover.hint]


def end_connections(superuser: Engine) -> None:
    """End those of ``app`` to the database."""
    ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    with superuser.connect() as connection:
        connection.execute(text(f"{ended} WHERE datname = current_database() AND usename = 'app'"))


@pytest.fixture
def bouncer(pgbouncer: None, server: Server, place: str) -> Iterator[PgBouncer]:
    """It has one connection to the server, for all of its clients."""
    with PgBouncer(server.url(place, user="app", password="app"), pool_size=1) as bouncer:
        yield bouncer


@pytest.mark.parametrize("how", hows(POOLED))
@first_and_rest("leftovers", CLOSED)
def test_it_is_the_same_through_a_pooler(
    bouncer: PgBouncer,
    superuser: Engine,
    runner: asyncio.Runner,
    leftovers: list[Leftover],
    how: How,
    subtests: pytest.Subtests,
) -> None:
    for leftover in leftovers:
        with subtests.test(leftover.name), ExitStack() as afterwards:
            # The next row gets a new connection to the server.
            afterwards.callback(end_connections, superuser)
            alices, bobs = (Line(bouncer.url, how, runner, CONNECT_ARGS[how.driver]) for _ in range(2))
            for line in (alices, bobs):
                afterwards.callback(line.hang_up)
            # Behind a pooler no driver may prepare any.
            same = "closed" if leftover.hint else expected(leftover, how, "settings")
            assert verdict(leftover, alices, bobs, superuser) == same


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", hows(POOLED))
def test_what_a_client_of_a_pooler_is_opened_with_stays(
    bouncer: PgBouncer,
    monkeypatch: pytest.MonkeyPatch,
    runner: asyncio.Runner,
    how: How,
    alice: Caller,
    bob: Caller,
) -> None:
    opened = {"application_name": "todos", "TimeZone": "Asia/Tokyo", "DateStyle": "German, DMY"}
    if how.driver == "psycopg":
        opened["client_encoding"] = "LATIN1"

    def line(settings: dict[str, str]) -> Line:
        if how.driver == "asyncpg":
            return Line(bouncer.url, how, runner, {**CONNECT_ARGS[how.driver], "server_settings": settings})
        # psycopg takes these two from the environment.
        monkeypatch.setenv("PGTZ", settings.pop("TimeZone"))
        monkeypatch.setenv("PGDATESTYLE", settings.pop("DateStyle"))
        made = Line(bouncer.url, how, runner, {**CONNECT_ARGS[how.driver], **settings})
        made.visit(alice, look)
        return made

    def look(session: Session) -> list[object]:
        return [session.scalar(text(f"SHOW {name}")) for name in opened]

    def spell(session: Session) -> object:
        # By the bytes of Latin-1 it is one letter of UTF-8.
        return session.scalar(select(func.octet_length("Ã¤")))

    like_this = line({**opened})
    others = {"application_name": "others", "TimeZone": "UTC", "DateStyle": "ISO, MDY"}
    otherwise = line({**others})
    for _ in range(2):
        assert like_this.visit(alice, look) == list(opened.values())
        assert otherwise.visit(bob, look)[:3] == list(others.values())
        assert like_this.visit(alice, spell) == otherwise.visit(bob, spell) == 4
    for one in (like_this, otherwise):
        one.hang_up()


# Beyond what is left in a session


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", [HOWS["psycopg, pipeline"], HOWS["asyncpg, with_begin"]])
def test_a_connection_that_alice_lets_time_out_is_replaced_by_a_pool_that_pings(
    url: URL, admin: Engine, todos: None, runner: asyncio.Runner, how: How, alice: Caller, bob: Caller
) -> None:
    def time_out(line: Line) -> None:
        backend = line.visit(
            alice, lambda session: inject(session, ("SET idle_session_timeout = '1ms'",), how)
        )
        with admin.connect() as connection:
            there = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid").bindparams(pid=backend)
            while connection.scalar(there):
                connection.rollback()

    for pings in (True, False):
        line = Line(url, how, runner, engine_options={"pool_pre_ping": pings})
        time_out(line)
        if not pings:
            with pytest.raises(DBAPIError) as error:
                line.visit(bob, lambda session: session.scalars(TASKS).all())
            assert error.value.connection_invalidated
        assert line.visit(bob, lambda session: session.scalars(TASKS).all()) == ["bob's"]
        line.hang_up()


@pytest.mark.exhaustive
def test_a_table_that_alice_locks_is_bobs_again_when_her_transaction_ends(
    url: URL, todos: None, runner: asyncio.Runner, alice: Caller, bob: Caller
) -> None:
    hers, his = (
        Line(url, HOWS["psycopg, pipeline"], runner, settings=settings)
        for settings in ({}, {"lock_timeout": "100ms"})
    )

    def read(session: Session) -> object:
        return session.scalars(TASKS).all()

    def lock(session: Session) -> None:
        session.execute(text("LOCK TABLE todos IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            his.visit(bob, read)

    hers.visit(alice, lock)
    assert his.visit(bob, read) == ["bob's"]
    for line in (hers, his):
        line.hang_up()


@pytest.mark.exhaustive
def test_a_lock_that_is_prepared_takes_a_setting_of_the_server(
    url: URL, todos: None, runner: asyncio.Runner, alice: Caller
) -> None:
    line = Line(url, HOWS["psycopg, pipeline"], runner)

    def prepare(session: Session) -> None:
        session.execute(text("LOCK TABLE todos IN ACCESS EXCLUSIVE MODE"))
        session.execute(text("PREPARE TRANSACTION 'hers'"))

    with pytest.raises(DBAPIError, match="prepared transactions are disabled"):
        line.visit(alice, prepare)
    line.hang_up()
