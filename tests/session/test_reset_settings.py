"""What the application has set for itself holds in every transaction, whatever the last caller has set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    URL,
    Column,
    Engine,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Reset, Transport
from sqla_rls.exc import BindingError, DeclarationError
from sqla_rls.testing.postgres import Server
from tests.support.line import HOWS, How, Line, hows
from tests.support.sessions import ANYTHING, TASKS, assert_refused
from tests.support.suite import table

BY_BEGIN = [name for name, how in HOWS.items() if how.transport != "statement" and not how.autocommit]
PATH = text("SHOW search_path")
TIMEOUT = text("SHOW statement_timeout")

Lines = Callable[..., Line]


@pytest.fixture(params=hows())
def how(request: pytest.FixtureRequest) -> How:
    how: How = request.param
    return how


SOME = ("psycopg, pipeline", "psycopg, statement", "asyncpg, pipeline")
by_some_transports = pytest.mark.parametrize("how", hows(SOME), indirect=True)
by_begin = pytest.mark.parametrize("how", hows(BY_BEGIN), indirect=True)


@pytest.fixture
def lines(url: URL, how: How, runner: asyncio.Runner) -> Iterator[Lines]:
    """``lines(options, **rules)``: a connection with *options* among its startup parameters."""
    made = []

    def line(options: dict[str, str] | None = None, *, log_in: URL = url, **rules: Any) -> Line:
        arguments: dict[str, Any] = {}
        if options and how.driver == "asyncpg":
            arguments["server_settings"] = options
        elif options:
            pairs = [f"{name}={value}".replace(" ", r"\ ") for name, value in options.items()]
            arguments["options"] = " ".join(f"-c {pair}" for pair in pairs)
        made.append(Line(log_in, how, runner, arguments, **rules))
        return made[-1]

    yield line
    for one in made:
        one.hang_up()


def value(statement: Any) -> Callable[[Session], Any]:
    return lambda session: session.scalar(statement)


def spoil(session: Session) -> None:
    """What alice leaves."""
    for statement in (
        "SET search_path = pg_temp, public",
        "SET statement_timeout = '1h'",
        "SET default_transaction_isolation = 'repeatable read'",
        "CREATE OR REPLACE TEMP VIEW todos AS SELECT 1 AS id, 'bob' AS user_id, 'planted' AS task",
    ):
        session.execute(text(statement))
    session.commit()


# Settings


def when_connected(line: Line, *settings: str) -> None:
    @event.listens_for(line.engine, "connect")
    def configure(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        for setting in settings:
            cursor.execute(f"SET {setting}")
        cursor.close()
        connection.commit()


def test_what_the_application_sets_when_it_connects_must_be_named(
    lines: Lines, how: How, alice: Caller
) -> None:
    line = lines()
    when_connected(line, "statement_timeout = '7s'", "search_path = public")
    # As a statement, a binding leaves the rest as it is.
    names = "search_path, and" if how.transport == "statement" else "search_path, statement_timeout, and"
    for _ in range(2):
        with pytest.raises(DeclarationError, match=f"{names} .*settings={{'search_path': '…'}}"):
            line.visit(alice, value(ANYTHING))


@pytest.mark.exhaustive
def test_named_it_holds_in_each_transaction(lines: Lines, alice: Caller, bob: Caller) -> None:
    line = lines(settings={"statement_timeout": "7s"})
    when_connected(line, "statement_timeout = '7s'")
    assert line.visit(alice, value(TIMEOUT)) == "7s"
    line.visit(alice, spoil)
    for who in (bob, alice):
        assert line.visit(who, value(TIMEOUT)) == "7s"


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", [HOWS["psycopg, statement"], HOWS["asyncpg, statement"]])
def test_a_statement_leaves_what_the_application_sets(lines: Lines, alice: Caller) -> None:
    line = lines()
    when_connected(line, "statement_timeout = '7s'")
    assert line.visit(alice, value(TIMEOUT)) == "7s"


@pytest.mark.exhaustive
def test_a_setting_that_is_named_need_not_be_made(lines: Lines, alice: Caller, bob: Caller) -> None:
    line = lines(settings={"statement_timeout": "7s"})
    line.visit(alice, spoil)
    assert line.visit(bob, value(TIMEOUT)) == "7s"


@pytest.mark.exhaustive
@by_begin
def test_startup_parameters_hold(lines: Lines, alice: Caller, bob: Caller) -> None:
    line = lines({"statement_timeout": "7s", "default_transaction_isolation": "serializable"})
    line.visit(alice, spoil)
    assert line.visit(bob, value(TIMEOUT)) == "7s"
    assert line.visit(bob, value(text("SHOW transaction_isolation"))) == "serializable"


@pytest.mark.parametrize("name", ["role", "Client_Encoding", "request.jwt.claims", "pg_session_jwt.jwt"])
def test_settings_that_are_not_the_applications_are_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match=name):
        enforce_row_security(sessionmaker(), settings={name: "x"})


# The search_path


@pytest.fixture
def elsewhere(admin: Engine) -> None:
    """Tables of the same name in other schemas, which say where they are."""
    with admin.begin() as connection:
        for schema in ("app", "authenticated", '"My, Schema"'):
            connection.execute(text(f"CREATE SCHEMA {schema}"))
            connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO authenticated"))
            connection.execute(text(f"CREATE VIEW {schema}.place AS SELECT '{schema}' AS name"))
            connection.execute(text(f"GRANT SELECT ON {schema}.place TO authenticated"))
        connection.execute(text("CREATE VIEW public.place AS SELECT 'public' AS name"))
        connection.execute(text("GRANT SELECT ON public.place TO authenticated"))


PATHS = {
    "public": "public",
    '"My, Schema", public': '"My, Schema"',
    '"$user", public': "authenticated",
    "missing, public": "public",
}
PLACE = text("SELECT name FROM place")


@pytest.mark.exhaustive
@by_some_transports
@table("path", PATHS)
def test_a_path_from_the_options_is_kept(
    lines: Lines, elsewhere: None, alice: Caller, bob: Caller, path: str
) -> None:
    line = lines({"search_path": path})
    line.visit(alice, spoil)
    assert line.visit(bob, value(PLACE)) == PATHS[path]
    assert line.visit(bob, value(PATH)) == f"{path}, pg_temp"


@by_some_transports
@table("path", PATHS)
@pytest.mark.exhaustive
def test_a_path_from_settings_wins(
    lines: Lines, elsewhere: None, alice: Caller, bob: Caller, path: str
) -> None:
    line = lines({"search_path": "app"}, settings={"search_path": path})
    line.visit(alice, spoil)
    assert line.visit(bob, value(PLACE)) == PATHS[path]


@pytest.mark.exhaustive
@by_some_transports
@pytest.mark.parametrize("empty", ["", '""'])
def test_an_empty_path_is_kept(lines: Lines, alice: Caller, bob: Caller, empty: str) -> None:
    line = lines(settings={"search_path": empty})
    line.visit(alice, spoil)
    assert line.visit(bob, value(text("SELECT to_regclass('notices')"))) is None
    assert line.visit(bob, value(text("SELECT count(*) FROM public.todos"))) == 0


SPELLED = {
    # A part of the name is a keyword.
    "app.user": "it's 100 % a \\ and a \"",
    "search_path": ' "Odd, %s", "$user" ,table, public',
    "temp_tablespaces": "pg_default, pg_default",
    "datestyle": "German, DMY",
    "statement_timeout": "7s",
}


@table("names", [["app.user", "datestyle", "statement_timeout"], ["search_path"], list(SPELLED)])
@pytest.mark.exhaustive
def test_values_of_every_kind_are_set_as_they_are(lines: Lines, alice: Caller, names: list[str]) -> None:
    settings = {name: SPELLED[name] for name in names}
    shown = select(*[func.current_setting(name) for name in settings])
    line = lines(settings=settings)
    for _ in range(2):
        found = line.visit(alice, lambda session: session.execute(shown).one())
        assert dict(zip(settings, found, strict=True)) == {
            name: f"{value}, pg_temp" if name == "search_path" else value for name, value in settings.items()
        }


@by_some_transports
@pytest.mark.exhaustive
def test_temporary_tables_of_the_application_work_by_name(lines: Lines, alice: Caller) -> None:
    drafts = Table("drafts", MetaData(), Column("what", Text), prefixes=["TEMPORARY"])
    line = lines()

    def work(session: Session) -> object:
        drafts.create(session.connection())
        session.execute(insert(drafts).values(what="a letter"))
        return session.scalars(select(drafts.c.what)).all()

    assert line.visit(alice, work) == ["a letter"]


# The modes of a transaction

MODES = text(
    "SELECT concat_ws(', ', "
    "current_setting('transaction_isolation'), current_setting('transaction_read_only'), "
    "current_setting('transaction_deferrable'))"
)


def spoil_modes(session: Session) -> None:
    modes = "ISOLATION LEVEL REPEATABLE READ, READ ONLY, DEFERRABLE"
    session.execute(text(f"SET SESSION CHARACTERISTICS AS TRANSACTION {modes}"))
    session.commit()


@pytest.mark.exhaustive
@by_begin
def test_what_is_asked_for_one_transaction_wins(lines: Lines, alice: Caller, bob: Caller) -> None:
    line = lines()
    asked: dict[str, dict[str, Any]] = {
        "serializable, off, off": {"isolation_level": "SERIALIZABLE"},
        "read committed, on, off": {"postgresql_readonly": True},
        "serializable, on, on": {
            "isolation_level": "SERIALIZABLE",
            "postgresql_readonly": True,
            "postgresql_deferrable": True,
        },
    }
    for expected, options in asked.items():
        line.visit(alice, spoil_modes)
        assert line.visit(bob, value(MODES)) == "read committed, off, off"

        def look(session: Session, options: dict[str, Any] = options) -> object:
            return session.connection(execution_options=options).scalar(MODES)

        assert line.visit(bob, look) == expected
        assert line.visit(bob, value(MODES)) == "read committed, off, off"


@pytest.mark.exhaustive
@by_begin
def test_modes_that_the_database_has_are_kept(
    lines: Lines, admin: Engine, url: URL, alice: Caller, bob: Caller
) -> None:
    with admin.begin() as connection:
        for mode in ("isolation = serializable", "deferrable = on"):
            connection.execute(text(f'ALTER DATABASE "{url.database}" SET default_transaction_{mode}'))
    line = lines()
    line.visit(alice, spoil_modes)
    assert line.visit(bob, value(MODES)) == "serializable, off, on"


# What the login role has set for itself


@pytest.fixture
def login(server: Server, admin: Engine, url: URL) -> Iterator[URL]:
    """Of a login role that nobody else has."""
    name = f"login_{url.database}"
    option = "WITH INHERIT FALSE, SET TRUE" if server.version >= 16 else ""
    with admin.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN NOINHERIT"))
        connection.execute(text(f"GRANT authenticated, anonymous TO {name} {option}"))
    yield url.set(username=name)
    with admin.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))


def alter_role(setting: str) -> Callable[[Session], None]:
    def alter(session: Session) -> None:
        session.execute(text("RESET ROLE"))
        session.execute(text(f"ALTER ROLE CURRENT_USER SET {setting}"))
        session.commit()

    return alter


@pytest.mark.exhaustive
@by_some_transports
def test_a_role_that_alice_gives_to_new_connections_is_not_theirs(
    lines: Lines, login: URL, how: How, alice: Caller, bob: Caller
) -> None:
    line = lines(log_in=login)
    line.visit(alice, alter_role("role = 'authenticated'"))
    line.hang_up()
    assert unbound(line) == login.username
    assert line.visit(bob, value(text("SELECT current_user"))) == "authenticated"
    kept = lines(log_in=login, reset="none", signing="off")
    assert unbound(kept) == "authenticated"


@by_some_transports
def test_default_claims_of_the_login_role_are_nobodys(
    lines: Lines, admin: Engine, login: URL, how: How, bob: Caller
) -> None:
    with admin.begin() as connection:
        # Postgres lets only a superuser set such a default.
        connection.exec_driver_sql(
            f"""ALTER ROLE {login.username} SET request.jwt.claims = '{{"sub":"eve"}}'"""
        )
    claims = text("SELECT current_setting('request.jwt.claims', true)")
    line = lines(log_in=login, signing="off")
    assert json.loads(line.visit(bob, value(claims)))["sub"] == "bob"
    assert line.raw(lambda connection: connection.scalar(claims)) == ""
    kept = lines(log_in=login, reset="none", signing="off")
    assert "eve" in kept.raw(lambda connection: connection.scalar(claims))


@pytest.mark.exhaustive
@by_some_transports
def test_a_library_that_alice_has_new_connections_load_is_not_loaded(
    lines: Lines, login: URL, alice: Caller, bob: Caller
) -> None:
    line = lines(log_in=login)
    line.visit(alice, alter_role("local_preload_libraries = 'nope'"))
    line.hang_up()
    for one in (line, lines(log_in=login)):
        assert one.visit(bob, value(text("SHOW local_preload_libraries"))) == ""
    with pytest.raises(Exception, match="nope"):
        lines(log_in=login, reset="none", signing="off").visit(bob, value(ANYTHING))


def unbound(line: Line) -> object:
    """As whom a connection of its engine runs that is no session's."""
    return line.raw(lambda connection: connection.scalar(text("SELECT current_user::text")))


@pytest.mark.exhaustive
@by_some_transports
def test_settings_that_alice_gives_to_new_connections_yield_to_those_that_are_named(
    lines: Lines, login: URL, alice: Caller, bob: Caller
) -> None:
    line = lines(log_in=login)
    line.visit(alice, alter_role("statement_timeout = '1h'"))
    line.hang_up()
    assert line.visit(bob, value(TIMEOUT)) == "1h"
    assert lines(log_in=login, settings={"statement_timeout": "7s"}).visit(bob, value(TIMEOUT)) == "7s"
    assert lines({"statement_timeout": "7s"}, log_in=login).visit(bob, value(TIMEOUT)) == "7s"


@pytest.mark.exhaustive
@by_some_transports
@pytest.mark.parametrize("path", ["pg_temp, public", "''"])
def test_a_path_that_alice_gives_to_new_connections_yields_to_one_that_is_named(
    lines: Lines, login: URL, todos: None, alice: Caller, bob: Caller, path: str
) -> None:
    line = lines(log_in=login)
    line.visit(alice, alter_role(f"search_path = {path}"))
    line.hang_up()
    named = lines(log_in=login, settings={"search_path": "public"})
    for one, expected in ((line, ["planted"]), (named, ["bob's"])):
        one.visit(alice, spoil)
        assert one.visit(bob, lambda session: session.scalars(TASKS).all()) == expected


# How connections are opened


@by_some_transports
def test_options_of_the_applications_own_win(lines: Lines, alice: Caller) -> None:
    line = lines({"role": "anonymous", "work_mem": "5MB"})
    assert unbound(line) == "anonymous"
    assert line.visit(alice, value(text("SHOW work_mem"))) == "5MB"


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", [HOWS["psycopg, with_begin"], HOWS["psycopg, asyncio, pipeline"]])
def test_options_of_the_environment_are_kept(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, alice: Caller
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=5MB -c search_path=public,\\ auth")
    line = lines()
    assert line.visit(alice, value(text("SHOW work_mem"))) == "5MB"
    assert line.visit(alice, value(PATH)) == "public, auth, pg_temp"
    assert unbound(line) == "app"


@pytest.mark.exhaustive
@by_some_transports
def test_a_password_of_today_is_asked_for_each_connection(lines: Lines, url: URL, alice: Caller) -> None:
    line = lines(log_in=url.set(username="nobody"))
    asked = []

    @event.listens_for(line.engine, "do_connect")
    def provide(dialect: object, record: object, cargs: object, cparams: dict[str, Any]) -> None:
        asked.append(cparams["user"])
        cparams["user"] = "app"

    assert line.visit(alice, value(text("SELECT session_user::text"))) == "app"
    line.hang_up()
    assert line.visit(alice, value(text("SELECT session_user::text"))) == "app"
    # The first one was opened twice: to see whether it is to the server itself.
    assert len(asked) == 3


@table(
    "options",
    [
        {"poolclass": NullPool},
        {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 0},
        {"pool_recycle": 0, "pool_size": 1, "max_overflow": 0},
    ],
    ids=["NullPool", "pre-ping", "recycle"],
)
@table("reset", ["settings", "all"])
def test_however_connections_are_pooled(
    url: URL, todos: None, alice: Caller, bob: Caller, options: dict[str, Any], reset: Reset
) -> None:
    engine = create_engine(url, **options)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(reset=reset))
    for _ in range(2):
        with maker() as session:
            identify(session, alice)
            spoil(session)
        with maker() as session:
            identify(session, bob)
            assert session.scalars(TASKS).all() == ["bob's"]
            assert session.scalar(TIMEOUT) == "0"
    engine.dispose()


@pytest.mark.exhaustive
def test_a_connection_of_the_applications_own_has_its_path_only(
    url: URL, todos: None, alice: Caller, bob: Caller
) -> None:
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    engine = create_engine(url, creator=lambda: psycopg.connect(conninfo), pool_size=1, max_overflow=0)
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    with maker() as session:
        # Replaced, once, by one that might do more.
        identify(session, alice)
        session.scalar(PATH)
    with maker() as session:
        identify(session, alice)
        spoil(session)
    with maker() as session:
        identify(session, bob)
        assert session.scalars(TASKS).all() == ["bob's"]
        assert session.scalar(PATH) == '"$user", public, pg_temp'
        assert session.scalar(TIMEOUT) == "1h"
    engine.dispose()


@pytest.mark.parametrize("settings", [{"statement_timeout": "soon"}, {"log_statement": "all"}])
def test_a_setting_that_postgres_refuses_is_named(
    pool: Engine, transport: Transport, alice: Caller, settings: dict[str, str]
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, settings=settings, options=BindingOptions(transport=transport))
    with maker() as session:
        identify(session, alice)
        assert_refused(session, BindingError, next(iter(settings)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["TimeZone", "timezone"])
def test_a_setting_is_named_in_any_case(pool: Engine, alice: Caller, name: str) -> None:
    @event.listens_for(pool, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        connection.commit()

    maker = sessionmaker(pool)
    enforce_row_security(maker, settings={name: "Asia/Tokyo"})
    with maker() as session:
        identify(session, alice)
        assert session.scalar(text("SHOW TimeZone")) == "Asia/Tokyo"
