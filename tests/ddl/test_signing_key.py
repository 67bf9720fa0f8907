"""The key that callers are verified with: who can read it, where it shows, how it is changed."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.exc import SigningUnavailable
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.testing.postgres import Server
from tests.support.base64url import decoded
from tests.support.signing import Signed, as_authenticated, ask, bind, refusal, token, traces
from tests.support.suite import table

KEY_TABLE = "sqla_rls_secret.signing_key"


DENIED = [
    f"SELECT * FROM {KEY_TABLE}",
    f"SELECT count(*) FROM {KEY_TABLE}",
    f"COPY {KEY_TABLE} TO STDOUT",
    f"INSERT INTO {KEY_TABLE} (slot, inner_pad, outer_pad) VALUES (1, '', '')",
    f"UPDATE {KEY_TABLE} SET accept_until = 'infinity'",
    f"DELETE FROM {KEY_TABLE}",
    f"TRUNCATE {KEY_TABLE}",
    f"LOCK TABLE {KEY_TABLE} IN ACCESS EXCLUSIVE MODE",
    f"ALTER TABLE {KEY_TABLE} RENAME TO x",
    f"DROP TABLE {KEY_TABLE}",
    f"CREATE TRIGGER t BEFORE INSERT ON {KEY_TABLE} FOR EACH ROW EXECUTE FUNCTION x()",
    f"CREATE RULE r AS ON SELECT TO {KEY_TABLE} DO INSTEAD NOTHING",
    f"CREATE POLICY p ON {KEY_TABLE} USING (true)",
    f"CREATE VIEW v AS SELECT * FROM {KEY_TABLE}",
    f"CREATE TEMPORARY TABLE t AS TABLE {KEY_TABLE}",
    f"CREATE TEMPORARY TABLE t () INHERITS ({KEY_TABLE})",
    f"CREATE TEMPORARY TABLE t (LIKE {KEY_TABLE} INCLUDING ALL)",
    f"GRANT SELECT ON {KEY_TABLE} TO PUBLIC",
    "GRANT USAGE ON SCHEMA sqla_rls_secret TO PUBLIC",
    "GRANT sqla_rls_keyholder TO app",
    "SET ROLE sqla_rls_keyholder",
    "SET SESSION AUTHORIZATION sqla_rls_keyholder",
    "CREATE TABLE sqla_rls_secret.t ()",
    "SELECT sqla_rls_secret.rotate_signing_key('0')",
    "ALTER FUNCTION auth.session() RENAME TO x",
    "ALTER FUNCTION auth.session() SET search_path = pg_temp",
    "CREATE OR REPLACE FUNCTION auth.session() RETURNS jsonb LANGUAGE sql RETURN 'null'::jsonb",
    "CREATE OR REPLACE FUNCTION auth.user_id() RETURNS text LANGUAGE sql RETURN 'bob'",
    "DROP FUNCTION auth.session()",
    "DROP SCHEMA auth CASCADE",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT lo_import('/etc/hostname')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "LOAD '$libdir/auto_explain'",
]


@table("role", ["app", "authenticated"])
def test_an_application_neither_reads_nor_changes_the_key(
    signed: Signed, role: str, subtests: pytest.Subtests
) -> None:
    with signed.app.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
        for statement in DENIED:
            with subtests.test(statement):
                savepoint = connection.begin_nested()
                with pytest.raises(DBAPIError) as raised:
                    connection.exec_driver_sql(statement)
                savepoint.rollback()
                # insufficient_privilege
                assert getattr(raised.value.orig, "sqlstate", None) == "42501", raised.value


@pytest.mark.exhaustive
def test_the_owner_of_the_database_reads_no_key(signed: Signed) -> None:
    """Who isn't the one that made the functions, and may do nothing else."""
    with signed.admin.begin() as connection:
        owner = f"owner_{os.getpid()}"
        connection.exec_driver_sql(f"CREATE ROLE {owner}")
        connection.exec_driver_sql(f'ALTER DATABASE "{signed.admin.url.database}" OWNER TO {owner}')
        connection.exec_driver_sql(f"SET LOCAL ROLE {owner}")
        for statement in (f"TABLE {KEY_TABLE}", "SET ROLE sqla_rls_keyholder"):
            savepoint = connection.begin_nested()
            connection.exec_driver_sql(f"SET LOCAL SESSION AUTHORIZATION {owner}")
            with pytest.raises(ProgrammingError, match="permission denied"):
                connection.exec_driver_sql(statement)
            savepoint.rollback()
        connection.rollback()


def test_statistics_hold_no_copy_of_the_key(signed: Signed) -> None:
    with signed.admin.begin() as connection:
        for _ in range(2):
            rotate_signing_key(connection)
        connection.exec_driver_sql(f"ANALYZE {KEY_TABLE}")
        columns = text("SELECT attname::text FROM pg_stats WHERE schemaname = 'sqla_rls_secret'")
        assert set(connection.scalars(columns)) == {"slot", "accept_until"}


@pytest.mark.exhaustive
def test_default_privileges_open_nothing(server: Server, engine: Engine) -> None:
    with engine.begin() as connection:
        for statement in (
            "GRANT ALL ON TABLES TO PUBLIC",
            "GRANT ALL ON TABLES TO pg_monitor",
            "GRANT ALL ON FUNCTIONS TO pg_monitor",
            "GRANT ALL ON SCHEMAS TO PUBLIC, pg_monitor",
        ):
            connection.exec_driver_sql(f"ALTER DEFAULT PRIVILEGES {statement}")
        connection.execute(CreateAuthFunctions(signed=True))
        may = text("""
            SELECT has_schema_privilege(r, 'sqla_rls_secret', 'USAGE')
                   OR has_schema_privilege(r, 'sqla_rls_secret', 'CREATE')
                   OR has_table_privilege(r, 'sqla_rls_secret.signing_key', 'SELECT')
                   OR has_any_column_privilege(r, 'sqla_rls_secret.signing_key', 'SELECT, INSERT, UPDATE')
                   OR has_function_privilege(r, 'sqla_rls_secret.rotate_signing_key(interval)', 'EXECUTE')
              FROM unnest(ARRAY['pg_monitor', 'pg_signal_backend']) AS r""")
        assert list(connection.scalars(may)) == [False, False]
        holder = text("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'signing_key'")
        assert connection.scalar(holder) == "sqla_rls_keyholder"


@pytest.mark.exhaustive
def test_a_key_is_32_random_bytes(signed: Signed) -> None:
    with signed.admin.begin() as connection:
        keys = [signed.key, *(rotate_signing_key(connection) for _ in range(20))]
    assert len(set(keys)) == 21
    assert {len(decoded(key)) for key in keys} == {32}
    assert {len(key) for key in keys} == {43}
    assert all(len(set(position)) > 1 for position in zip(*map(decoded, keys), strict=True))


@pytest.mark.exhaustive
def test_the_previous_key_stays_good_for_a_while(signed: Signed) -> None:
    def good(*keys: str) -> list[bool]:
        answers = []
        for key in keys:
            with as_authenticated(signed) as connection:
                bind(connection, token(key))
                try:
                    answers.append(ask(connection) == "alice")
                except DBAPIError:
                    answers.append(False)
        return answers

    def rotate(grace: timedelta) -> str:
        with signed.admin.begin() as connection:
            return rotate_signing_key(connection, grace=grace)

    first = signed.key
    second = rotate(timedelta(hours=1))
    assert good(first, second) == [True, True]
    with signed.admin.begin() as connection:
        connection.execute(text("UPDATE sqla_rls_secret.signing_key SET accept_until = now() WHERE slot = 1"))
    assert good(first, second) == [False, True]
    third = rotate(timedelta(hours=1))
    assert good(first, second, third) == [False, True, True]
    fourth = rotate(timedelta(hours=1))
    assert good(first, second, third, fourth) == [False, False, True, True]
    fifth = rotate(timedelta(0))
    assert good(second, third, fourth, fifth) == [False, False, False, True]


@pytest.mark.exhaustive
def test_a_key_counts_once_it_is_committed(signed: Signed) -> None:
    with signed.admin.connect() as connection:
        assert rotate_signing_key(connection, grace=timedelta(0)) != signed.key
        connection.rollback()
    with as_authenticated(signed) as connection:
        bind(connection, signed.token())
        assert ask(connection) == "alice"


@pytest.mark.exhaustive
def test_rotating_under_load_refuses_nobody(signed: Signed) -> None:
    """The application takes each key once it is committed, and goes on with the old one until then."""
    current = [signed.key]
    stop = threading.Event()
    failures: list[BaseException] = []
    transactions = [0, 0, 0]

    def run(number: int) -> None:
        with signed.app.connect() as connection:
            while not stop.is_set():
                try:
                    bind(connection, "authenticated", "role")
                    bind(connection, "1ms", "lock_timeout")
                    bind(connection, token(current[-1]))
                    assert ask(connection) == "alice"
                    connection.commit()
                    transactions[number] += 1
                except BaseException as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=run, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    with signed.admin.connect() as connection:
        for _ in range(20):
            key = rotate_signing_key(connection, grace=timedelta(minutes=1))
            connection.execute(text("SELECT pg_sleep(0.02)"))  # nobody waits for what it locks
            connection.commit()
            current.append(key)
            before = list(transactions)
            while not failures and any(now <= then for now, then in zip(transactions, before, strict=True)):
                connection.execute(text("SELECT pg_sleep(0.005)"))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert min(transactions) >= 20


@pytest.mark.exhaustive
def test_two_who_rotate_at_once_wait_for_each_other(signed: Signed) -> None:
    keys: list[str] = []

    def rotate() -> None:
        with signed.admin.begin() as connection:
            keys.append(rotate_signing_key(connection))

    with signed.admin.begin() as connection:
        keys.append(rotate_signing_key(connection))
        threads = [threading.Thread(target=rotate) for _ in range(3)]
        for thread in threads:
            thread.start()
        connection.execute(text("SELECT pg_sleep(0.2)"))
        assert len(keys) == 1
    for thread in threads:
        thread.join()
    good = []
    for key in keys:
        with as_authenticated(signed) as app:
            bind(app, token(key))
            good.append(key)
            if key not in keys[-2:]:
                refusal(app)
            else:
                assert ask(app) == "alice"
    assert len(good) == 4


@table("grace", ["NULL", "'-1 second'", "'1 day -25 hours'", "'300000 years'"])
def test_a_grace_that_makes_no_sense_is_refused_without_a_word_about_the_key(
    signed: Signed, grace: str
) -> None:
    with signed.admin.connect() as connection, pytest.raises(DBAPIError) as raised:
        connection.exec_driver_sql(f"SELECT sqla_rls_secret.rotate_signing_key({grace})")
    assert not any(trace in str(raised.value) for trace in traces(signed.key))
    assert "Failing row" not in str(raised.value)
    with signed.admin.connect() as connection, pytest.raises(ValueError, match="0 or more"):
        rotate_signing_key(connection, grace=timedelta(seconds=-1))


def test_who_may_not_rotate_is_told_what_to_do(signed: Signed, engine: Engine) -> None:
    with (
        signed.app.connect() as connection,
        pytest.raises(SigningUnavailable, match="Connect as the role that made"),
    ):
        rotate_signing_key(connection)
    with engine.connect() as connection, pytest.raises(SigningUnavailable, match=r"signed=True"):
        rotate_signing_key(connection)


@pytest.mark.exhaustive
def test_the_command_prints_the_key_and_nothing_else(signed: Signed) -> None:
    url = signed.admin.url.set(drivername="postgresql").render_as_string(hide_password=False)
    result = CliRunner().invoke(main, ["rotate-key", url, "--grace", "0 seconds"])
    assert result.exit_code == 0, result.output
    with as_authenticated(signed) as connection:
        bind(connection, token(result.output.removesuffix("\n")))
        assert ask(connection) == "alice"
        bind(connection, signed.token())
        refusal(connection)
    for arguments, message in (
        ([url, "--grace", "soon"], 'invalid input syntax for type interval: "soon". Give an interval'),
        ([url, "--grace", "-1 hour"], "0 or more"),
        ([url.replace("postgres@", "app:app@")], "the key can't be rotated: this role may not call"),
    ):
        refused = CliRunner().invoke(main, ["rotate-key", *arguments])
        assert refused.exit_code == 1
        assert message in refused.output
        assert "Traceback" not in refused.output


@pytest.mark.exhaustive
def test_asyncpg_rotates_as_well(signed: Signed) -> None:
    import asyncio

    async def rotate() -> str:
        engine = create_async_engine(
            signed.admin.url.set(drivername="postgresql+asyncpg"), connect_args={"ssl": False}
        )
        async with engine.begin() as connection:
            key = await connection.run_sync(rotate_signing_key, grace=timedelta(minutes=1))
        await engine.dispose()
        return key

    key = asyncio.run(rotate())
    with as_authenticated(signed) as connection:
        bind(connection, token(key))
        assert ask(connection) == "alice"


def test_sqlalchemy_logs_no_key(signed: Signed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    engine = create_engine(signed.admin.url, poolclass=NullPool, echo="debug")
    with engine.begin() as connection:
        key = rotate_signing_key(connection)
        connection.execute(text("SELECT 'a row that is logged'"))
    assert "a row that is logged" in caplog.text
    assert not [trace for trace in traces(key) if trace in caplog.text]


_LOG_EVERYTHING = {
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "all.log",
    "log_statement": "all",
    "log_min_messages": "debug5",
    "log_min_error_statement": "debug5",
    "log_error_verbosity": "verbose",
    "log_duration": "on",
    "log_min_duration_statement": "0",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_statement_stats": "on",
    "debug_print_parse": "on",
    "debug_print_rewritten": "on",
    "debug_print_plan": "on",
    "debug_pretty_print": "off",
    "shared_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_verbose": "on",
    "auto_explain.log_triggers": "on",
    "auto_explain.log_settings": "on",
    "auto_explain.log_nested_statements": "on",
    "track_functions": "all",
}


@pytest.fixture
def talkative(server: Server) -> Iterator[Server]:
    if server.installation is None:
        pytest.skip("a server that isn't ours keeps its log to itself")
    more = {"auto_explain.log_parameter_max_length": "-1"} if server.version >= 16 else {}
    with Server.start(server.installation, settings=_LOG_EVERYTHING | more) as talkative:
        yield talkative


@pytest.mark.exhaustive
def test_the_servers_log_holds_no_key(talkative: Server) -> None:
    engine = create_engine(talkative.url(), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(CreateAuthFunctions(signed=True))
    keys = []
    for _ in range(3):
        with engine.begin() as connection:
            keys.append(rotate_signing_key(connection))
    with engine.begin() as connection:
        bind(connection, token(keys[-1]))
        assert ask(connection) == "alice"
        bind(connection, token("A" * 43))
        refusal(connection)
    with engine.connect() as connection, pytest.raises(DBAPIError):
        connection.exec_driver_sql("SELECT sqla_rls_secret.rotate_signing_key(NULL)")
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT 'the end'")

    log = Path(str(talkative.socket_directory), "data", "log", "all.log")
    while b"the end" not in (logged := log.read_bytes()):
        pass
    for line in (
        b"rotate_signing_key(make_interval",
        b"Query Text: WITH fresh",
        b"parse tree",
    ):
        assert line in logged
    assert not [trace for key in keys for trace in traces(key) if trace.encode() in logged]


@pytest.mark.exhaustive
def test_the_query_for_the_key_is_planned_once(talkative: Server) -> None:
    """A plan for the present values would have these in place of the parameters."""
    engine = create_engine(talkative.url(), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(CreateAuthFunctions(signed=True))
        key = rotate_signing_key(connection)
    with engine.begin() as connection:
        for _ in range(6):  # as many as Postgres plans for their values
            bind(connection, token(key))
            assert ask(connection) == "alice"
        connection.exec_driver_sql("SELECT 'from here on'")
        assert ask(connection) == "alice"
        connection.exec_driver_sql("SELECT 'the end'")

    log = Path(str(talkative.socket_directory), "data", "log", "all.log")
    while b"the end" not in (logged := log.read_bytes()):
        pass
    _, _, last = logged.rpartition(b"from here on")
    filters = [
        line for line in last.splitlines() if line.lstrip().startswith(b"Filter:") and b"outer_pad" in line
    ]
    assert filters
    assert all(line.count(b"$") == 2 for line in filters), filters


def _dump(server: Server, url: URL, *options: str) -> str:
    assert server.installation is not None
    program = server.installation.bindir / "pg_dump"
    if not program.exists():
        pytest.skip(f"{program} isn't there")
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return subprocess.run([program, *options, address], check=True, capture_output=True, text=True).stdout


@pytest.mark.exhaustive
def test_a_dump_holds_the_key_unless_it_is_left_out(server: Server, signed: Signed, database: URL) -> None:
    whole = _dump(server, signed.admin.url)
    assert any(trace in whole for trace in traces(signed.key))
    dump = _dump(server, signed.admin.url, f"--exclude-table-data={KEY_TABLE}")
    assert "CREATE TABLE sqla_rls_secret.signing_key" in dump
    assert not [trace for trace in traces(signed.key) if trace in dump]

    if server.version >= 18:
        statistics = _dump(server, signed.admin.url, f"--exclude-table-data={KEY_TABLE}", "--statistics")
        assert not [trace for trace in traces(signed.key) if trace in statistics]

    psql = server.installation.bindir / "psql"  # type: ignore[union-attr]
    if not psql.exists():
        pytest.skip(f"{psql} isn't there")
    address = database.set(drivername="postgresql").render_as_string(hide_password=False)
    subprocess.run(
        [psql, "-v", "ON_ERROR_STOP=1", "-qX", address],
        input=dump,
        check=True,
        capture_output=True,
        text=True,
    )
    restored = Signed(
        signed.key,
        create_engine(database, poolclass=NullPool),
        create_engine(database.set(username="app", password="app"), poolclass=NullPool),
    )
    bindings = {"pg_session_jwt.jwt": restored.token(), "request.jwt.claims": '{"sub":"alice"}'}
    for setting, value in bindings.items():
        with as_authenticated(restored) as connection:
            bind(connection, value, setting)
            error = refusal(connection)
            assert (error.sqlstate, error.diag.constraint_name) == ("02000", "signing_key")
    with restored.admin.begin() as admin:
        key = rotate_signing_key(admin)
    with as_authenticated(restored) as connection:
        bind(connection, token(key))
        assert ask(connection) == "alice"
