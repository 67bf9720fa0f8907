"""SQL that tries to leave its role, to become another person, or to leave something to the next one."""

from __future__ import annotations

import asyncio
import logging
import resource
import threading
import time
import tracemalloc
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from sqla_rls.exc import UnsafeRole
from sqla_rls.neon_http import Limits, sql_endpoint
from sqla_rls.neon_http import endpoint as endpoint_module
from sqla_rls.neon_http.protocol import read_request
from sqla_rls.neon_http.values import loads, writer
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import Server
from tests.neon_http.conftest import Client, MakeEndpoint
from tests.prose import ROOT
from tests.support.sessions import Todo, database_with_tables
from tests.support.signing import Signed
from tests.support.suite import first_and_rest, table

ALL_TODOS = "SELECT task FROM todos ORDER BY id"


def _in_do_block(*statements: str) -> str:
    """A DO block that leaves the role and runs *statements*."""
    return f"DO $$ BEGIN PERFORM set_config('role', 'none', true); {' '.join(statements)} END $$"


#: Batches whose last query reads the todos, or raises an error.
ESCAPES: dict[str, list[str]] = {
    "a setting": ["SELECT set_config('role', 'none', true)", ALL_TODOS],
    "RESET ROLE": ["RESET ROLE", ALL_TODOS],
    "SET ROLE": ["SET ROLE app", ALL_TODOS],
    "SET SESSION AUTHORIZATION": ["SET SESSION AUTHORIZATION app", ALL_TODOS],
    "a superuser": ["SET ROLE postgres", ALL_TODOS],
    "anonymous": ["SET ROLE anonymous", ALL_TODOS],
    "RESET ALL": ["RESET ALL", ALL_TODOS],
    "DISCARD ALL": ["DISCARD ALL", ALL_TODOS],
    "COMMIT": ["COMMIT", ALL_TODOS],
    "COMMIT AND CHAIN": ["COMMIT AND CHAIN", ALL_TODOS],
    "a mark of the application": [
        "SELECT set_config(name, setting, false) FROM pg_settings WHERE name LIKE 'default_%_read_only'",
        "COMMIT AND CHAIN",
        ALL_TODOS,
    ],
    "ROLLBACK": ["ROLLBACK", ALL_TODOS],
    "ROLLBACK AND CHAIN": ["ROLLBACK AND CHAIN", ALL_TODOS],
    "a savepoint": ["SAVEPOINT a", "ROLLBACK TO a", ALL_TODOS],
    "PREPARE TRANSACTION": ["PREPARE TRANSACTION 'a'", ALL_TODOS],
    "COMMIT in DO": [_in_do_block("COMMIT;"), ALL_TODOS],
    "DO": [_in_do_block("RAISE EXCEPTION '%', (SELECT string_agg(task, ',') FROM todos);")],
    "a function of one's own": [
        """CREATE FUNCTION pg_temp.leak() RETURNS SETOF text SECURITY DEFINER
           BEGIN ATOMIC SELECT task FROM public.todos; END""",
        "SELECT pg_temp.leak() AS task",
    ],
    "row_security": ["SET LOCAL row_security = off", ALL_TODOS],
    "the claims": ["""SELECT set_config('request.jwt.claims', '{"sub": "bob"}', true)""", ALL_TODOS],
    "no token": ["SELECT set_config('pg_session_jwt.jwt', '', true)", ALL_TODOS],
    "a forged token": [
        "SELECT set_config('pg_session_jwt.jwt', 'e30.eyJzdWIiOiJib2IifQ.e30', true)",
        ALL_TODOS,
    ],
    "a lock on the table of all": ["LOCK TABLE pg_authid", ALL_TODOS],
    "several statements": ["RESET ROLE; SELECT task FROM todos"],
    "COPY to the client": ["COPY (SELECT * FROM todos) TO STDOUT"],
    "COPY from the client": ["COPY steps (what) FROM STDIN"],
    "COPY to a file": ["COPY todos TO '/tmp/todos'"],
    "COPY to a program": ["COPY todos TO PROGRAM 'cat'"],
    "the file system": ["SELECT pg_read_file('/etc/passwd') AS task"],
    "the signing key": ["SELECT encode(inner_key, 'hex') AS task FROM sqla_rls_secret.signing_key"],
    "the key, as the login role": [
        _in_do_block("RAISE EXCEPTION '%', (SELECT count(*) FROM sqla_rls_secret.signing_key);")
    ],
}


async def _escape(client: Client, attack: str) -> None:
    answer = await client.batch(*ESCAPES[attack])
    if answer.status_code == 200:
        rows = answer.json()["results"][-1]["rows"]
        assert rows in ([], [{"task": "alice's"}])
    else:
        assert answer.status_code == 400, answer.text
    assert "bob's" not in answer.text
    assert await client.rows(ALL_TODOS, subject="bob") == [["bob's"]]
    assert await client.rows(ALL_TODOS) == [["alice's"]]


@first_and_rest("attacks", ESCAPES)
async def test_nobody_sees_the_rows_of_another_person(
    client: Client, attacks: list[str], subtests: pytest.Subtests, runner: asyncio.Runner
) -> None:
    for attack in attacks:
        with subtests.test(attack):
            await _escape(client, attack)


#: The state of a session, beyond that of a new one.
TRACES = """
SELECT 'prepared ' || name FROM pg_prepared_statements
 UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name <> ''
 UNION ALL SELECT 'channel ' || pg_listening_channels()
 UNION ALL SELECT 'lock ' || objid FROM pg_locks WHERE locktype = 'advisory'
 UNION ALL SELECT 'temporary ' || relname FROM pg_class
            WHERE relnamespace = pg_my_temp_schema() AND relkind IN ('r', 'v', 'S')
 UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace = pg_my_temp_schema() AND typtype = 'd'
 UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema()
 UNION ALL SELECT 'setting ' || name || '=' || setting FROM pg_settings
            WHERE source = 'session' AND setting IS DISTINCT FROM reset_val AND name NOT IN (
              'default_transaction_read_only', 'idle_in_transaction_session_timeout', 'lock_timeout',
              'pg_session_jwt.jwt', 'request.jwt.claims', 'search_path',
              'statement_timeout', 'transaction_isolation', 'transaction_read_only',
              'transaction_deferrable')
 UNION ALL SELECT 'placeholder' WHERE current_setting('my.own', true) <> ''
"""

LEFTOVERS: dict[str, list[str]] = {
    "a prepared statement": ["PREPARE bob AS SELECT 1"],
    "a statement of the driver": ["PREPARE _pg3_0 AS SELECT 'alice'"],
    "a held cursor": ["DECLARE leak CURSOR WITH HOLD FOR SELECT 1"],
    "a channel": ["LISTEN gossip"],
    "a notification": ["LISTEN gossip", "NOTIFY gossip, 'hello'"],
    "a session's lock": ["SELECT pg_advisory_lock(42)"],
    "a lock of a failed transaction": ["SELECT pg_advisory_lock(42)", "SELECT 1 / 0"],
    "a lock of a function": ["DO $$ BEGIN PERFORM pg_advisory_lock(42); END $$"],
    "a temporary table": ["CREATE TEMP TABLE todos AS SELECT 'stolen' AS task, 1 AS id, 'bob' AS user_id"],
    "a temporary view": ["CREATE TEMP VIEW todos AS SELECT 'stolen' AS task, 1 AS id"],
    "a temporary domain": ["CREATE DOMAIN pg_temp.text AS varchar CHECK (pg_notify('a', VALUE) IS NULL)"],
    "a temporary function": ["CREATE FUNCTION pg_temp.count() RETURNS int RETURN 1"],
    "a timeout": ["SET statement_timeout = 1"],
    "a timeout of locks": ["SET lock_timeout = 1"],
    "a search path": ["SET search_path = pg_temp, public"],
    "read only": ["SET default_transaction_read_only = on"],
    "an isolation level": ["SET default_transaction_isolation = 'serializable'"],
    "an encoding": ["SET client_encoding = 'LATIN1'"],
    "an encoding without a codec": ["SET client_encoding = 'EUC_TW'"],
    "formats": ["SET DateStyle = 'SQL, DMY'", "SET bytea_output = 'escape'", "SET TimeZone = 'Asia/Kolkata'"],
    "no row security": ["SET row_security = off"],
    "a role": ["SET SESSION ROLE anonymous"],
    "a placeholder": ["SELECT set_config('my.own', repeat('x', 1000000), false) IS NULL"],
    "claims": ["""SELECT set_config('request.jwt.claims', '{"sub": "alice"}', false)"""],
    "a token": [
        "SELECT set_config('pg_session_jwt.jwt', current_setting('pg_session_jwt.jwt'), false) IS NULL"
    ],
    "a plan": ["PREPARE p AS SELECT 1", "EXECUTE p", "EXECUTE p"],
    "a sequence": ["CREATE TEMP SEQUENCE s", "SELECT nextval('s')"],
    "a trigger at the end": [
        "CREATE TEMP TABLE t (id int)",
        """CREATE FUNCTION pg_temp.f() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_advisory_lock(42); SET statement_timeout = 1; RETURN NEW; END $$""",
        """CREATE CONSTRAINT TRIGGER t AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION pg_temp.f()""",
        "INSERT INTO t VALUES (1)",
    ],
}


def _advisory_locks(admin: Engine) -> int:
    with admin.connect() as connection:
        found = connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
    assert isinstance(found, int)
    return found


async def _leave(client: Client, admin: Engine, leftover: str) -> None:
    backend = await client.rows("SELECT pg_backend_pid()")
    *before, last = LEFTOVERS[leftover]
    answer = await (client.batch(*before, last) if before else client.send({"query": last}))
    # Before the next request, too: a lock in the pool would hold up everybody.
    for _ in range(100):
        if not _advisory_locks(admin):
            break
        # The server ends a session soon after its connection is closed.
        await asyncio.sleep(0.05)
    assert _advisory_locks(admin) == 0
    assert await client.rows(TRACES, subject="bob") == []
    assert await client.rows("SELECT current_user, auth.user_id()", subject="bob") == [
        ["authenticated", "bob"]
    ]
    assert await client.rows(ALL_TODOS, subject="bob") == [["bob's"]]
    assert await client.rows("SELECT 'ß', now()::text LIKE '20%'", subject="bob") == [["ß", True]]
    assert (await client.batch("INSERT INTO steps (todo_id, what) VALUES (2, 'a')", subject="bob")).is_success
    if not {"encoding", "timeout"} & set(leftover.split()) and "is refused" not in answer.text:
        # Elsewhere DISCARD ALL may fail, or a statement is refused, and then the connection is closed.
        assert await client.rows("SELECT pg_backend_pid()", subject="bob") == backend


@first_and_rest("leftovers", LEFTOVERS)
@pytest.mark.exhaustive
async def test_nobody_inherits_anything(
    client: Client, signed: Signed, leftovers: list[str], subtests: pytest.Subtests, runner: asyncio.Runner
) -> None:
    for leftover in leftovers:
        with subtests.test(leftover):
            await _leave(client, signed.admin, leftover)


@pytest.mark.exhaustive
async def test_the_extension_keeps_people_apart(
    signing_server: Server, issuer: Issuer, subtests: pytest.Subtests, runner: asyncio.Runner
) -> None:
    with database_with_tables(signing_server) as name:
        admin = create_engine(signing_server.url(name), poolclass=NullPool)
        with Session(admin) as session:
            session.add_all([Todo(user_id=subject, task=f"{subject}'s") for subject in ("alice", "bob")])
            session.commit()
        url = signing_server.url(name, user="app", password="app").set(drivername="postgresql+psycopg")
        engine = create_async_engine(url, pool_size=1, max_overflow=0)
        client = Client(sql_endpoint(engine, issuer.provider), issuer)
        for attack in ESCAPES:
            with subtests.test(attack):
                await _escape(client, attack)
        for leftover in LEFTOVERS:
            with subtests.test(leftover):
                await _leave(client, admin, leftover)
        await engine.dispose()


ROLE_CHANGES = (
    "ALTER ROLE app PASSWORD 'stolen'",
    "ALTER ROLE app SET statement_timeout = 1",
    "ALTER ROLE app IN DATABASE {database} SET row_security = off",
    "ALTER ROLE CURRENT_USER PASSWORD NULL",
)


def _roles(admin: Engine) -> list[Any]:
    with admin.connect() as connection:
        secrets = text("SELECT rolname, rolpassword FROM pg_authid ORDER BY 1")
        settings = text("SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2")
        return [*connection.execute(secrets), *connection.execute(settings)]


@first_and_rest("changes", ROLE_CHANGES)
@pytest.mark.exhaustive
async def test_nobody_changes_the_login_role(
    client: Client, signed: Signed, changes: list[str], subtests: pytest.Subtests, runner: asyncio.Runner
) -> None:
    before = _roles(signed.admin)
    for change in changes:
        with subtests.test(change):
            statement = change.format(database=signed.admin.url.database)
            back = "PERFORM set_config('role', 'authenticated', true);"
            answer = await client.batch("SELECT 1", _in_do_block(f"EXECUTE $s${statement}$s$;", back))
            assert (answer.status_code, answer.json()["code"]) == (400, "42501"), answer.text
            assert "changes a role" in answer.json()["message"]
            assert _roles(signed.admin) == before
            assert await client.rows(ALL_TODOS, subject="bob") == [["bob's"]]


_CHANGE = "ALTER ROLE app SET work_mem = '1MB'"
_CHANGING = f"PERFORM set_config('role', 'none', true); {_CHANGE};"
_FUNCTION = f"""CREATE FUNCTION pg_temp.change() RETURNS int LANGUAGE plpgsql AS
$$ BEGIN {_CHANGING} RETURN 1; END $$"""
_TRIGGER = [
    "CREATE TEMP TABLE t (id int)",
    f"""CREATE FUNCTION pg_temp.change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN {_CHANGING} RETURN NEW; END $$""",
    """CREATE CONSTRAINT TRIGGER t AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
       FOR EACH ROW EXECUTE FUNCTION pg_temp.change()""",
    "INSERT INTO t VALUES (1)",
]
#: Batches that change the login role before Postgres can undo it, or while it commits.
COMMITTED_CHANGES: dict[str, list[str]] = {
    "COMMIT": ["RESET ROLE", _CHANGE, "COMMIT"],
    "COMMIT of another change": ["RESET ROLE", "ALTER ROLE app PASSWORD 'stolen'", "COMMIT"],
    "COMMIT AND CHAIN": ["RESET ROLE", _CHANGE, "COMMIT AND CHAIN"],
    "PREPARE TRANSACTION": ["RESET ROLE", _CHANGE, "PREPARE TRANSACTION 'a'"],
    "a trigger at the end": _TRIGGER,
    "a trigger at COMMIT": [*_TRIGGER, "COMMIT"],
    "a trigger at COMMIT AND CHAIN": [*_TRIGGER, "COMMIT AND CHAIN"],
    "a trigger of one block": [
        f"DO $do$ BEGIN {' '.join(f'EXECUTE $s${sql}$s$;' for sql in _TRIGGER)} END $do$".replace(
            "$$", "$f$"
        ),
        "COMMIT",
    ],
    "a held cursor at the end": [_FUNCTION, "DECLARE c CURSOR WITH HOLD FOR SELECT pg_temp.change()"],
    "a held cursor at COMMIT": [
        _FUNCTION,
        "DECLARE c CURSOR WITH HOLD FOR SELECT pg_temp.change()",
        "COMMIT",
    ],
    "a function of the application": [
        f"DECLARE c CURSOR WITH HOLD FOR SELECT run($s$DO $$ BEGIN {_CHANGING} END $$$s$)",
        "COMMIT",
    ],
}


@first_and_rest("batches", COMMITTED_CHANGES)
async def test_a_batch_that_commits_changes_no_login_role(
    client: Client, signed: Signed, batches: list[str], subtests: pytest.Subtests, runner: asyncio.Runner
) -> None:
    with signed.admin.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION run(sql text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE sql; END'"
        )
    before = _roles(signed.admin)
    for batch in batches:
        with subtests.test(batch):
            try:
                answer = await client.batch(*COMMITTED_CHANGES[batch])
                assert (answer.status_code, answer.json()["code"]) == (400, "42501"), answer.text
                assert _roles(signed.admin) == before
                assert await client.rows(ALL_TODOS, subject="bob") == [["bob's"]]
            finally:
                with signed.admin.begin() as connection:
                    connection.execute(text("ALTER ROLE app RESET ALL; ALTER ROLE app PASSWORD 'app'"))
                before = _roles(signed.admin)


def _shared(admin: Engine) -> list[Any]:
    """What one role's callers share: the policies, and the default privileges."""
    with admin.connect() as connection:
        policies = text("SELECT tablename, policyname, roles::text FROM pg_policies ORDER BY 1, 2")
        defaults = text("SELECT defaclrole::regrole::text, defaclacl::text FROM pg_default_acl ORDER BY 1, 2")
        return [*connection.execute(policies), *connection.execute(defaults)]


#: Batches that change what every caller of the role has.  PostgreSQL 15 leaves the policies alone.
SHARED_CHANGES: dict[str, list[str]] = {
    "DROP OWNED": ["DROP OWNED BY CURRENT_USER"],
    "DROP OWNED and COMMIT": ["DROP OWNED BY CURRENT_USER", "COMMIT"],
    "DROP OWNED of another role": ["SET ROLE anonymous", "DROP OWNED BY CURRENT_USER", "COMMIT"],
    "DROP OWNED in a subtransaction": [
        """DO $$ BEGIN BEGIN EXECUTE 'DROP OWNED BY CURRENT_USER';
           EXCEPTION WHEN division_by_zero THEN END; END $$""",
        "COMMIT",
    ],
    "default privileges": ["ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM CURRENT_USER", "COMMIT"],
}


@first_and_rest("batches", SHARED_CHANGES)
@pytest.mark.exhaustive
async def test_nobody_changes_the_policies_and_default_privileges_of_a_role(
    client: Client, signed: Signed, batches: list[str], subtests: pytest.Subtests, runner: asyncio.Runner
) -> None:
    with signed.admin.begin() as connection:
        connection.exec_driver_sql(
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO authenticated, anonymous"
        )
    before = _shared(signed.admin)
    for batch in batches:
        with subtests.test(batch):
            answer = await client.batch(*SHARED_CHANGES[batch])
            assert (answer.status_code, answer.json()["code"]) == (400, "42501"), answer.text
            assert "default privileges" in answer.json()["message"]
            assert _shared(signed.admin) == before
            assert await client.rows(ALL_TODOS, subject="bob") == [["bob's"]]


@pytest.mark.exhaustive
async def test_a_small_limit_bounds_the_memory_of_a_result(
    make_endpoint: MakeEndpoint, issuer: Issuer, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(limits=Limits(max_response_bytes=100_000)), issuer)
    await client.rows("SELECT 1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = await client.send({"query": "SELECT repeat('x', 1000000) FROM generate_series(1, 99)"})
    assert answer.status_code == 507
    # In KiB: a hundred rows would be 100,000.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.exhaustive
async def test_a_huge_result_ends_at_its_limit(
    make_endpoint: MakeEndpoint, issuer: Issuer, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(limits=Limits(max_response_bytes=100_000)), issuer)
    for sql in (
        "SELECT generate_series(1, 100000000)",
        "SELECT FROM generate_series(1, 100000)",
        "SELECT repeat('x', 100000)",
        "DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 100000); END $$",
        "DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 60000) USING DETAIL = repeat('x', 60000); END $$",
    ):
        answer = await client.send({"query": sql})
        assert answer.status_code == 507, answer.text
        assert answer.json() == {"message": "response is too large (max is 100000 bytes)"}
    # Nothing is written whose answer can't be read.
    insert = "INSERT INTO todos (task) SELECT repeat('x', 1000) FROM generate_series(1, 200) RETURNING task"
    assert (await client.send({"query": insert})).status_code == 507
    assert (await client.batch("SELECT repeat('x', 60000)", "SELECT repeat('x', 60000)")).status_code == 507
    assert await client.rows(ALL_TODOS) == [["alice's"]]


@pytest.mark.exhaustive
async def test_the_columns_of_a_batch_count_as_its_results_arrive(
    make_endpoint: MakeEndpoint, issuer: Issuer, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(limits=Limits(max_response_bytes=1_000_000)), issuer)
    columns = ", ".join(["1"] * 1600)
    # Of a result without rows, too.  The setting would fail the batch in another way.
    answer = await client.batch(*[f"SELECT {columns} LIMIT 0"] * 8, "SET client_encoding = 'LATIN1'")
    assert (answer.status_code, "too large" in answer.text) == (507, True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("sql", ["SELECT ARRAY[repeat('\"', 2000000)]", "SELECT repeat('x', 3000000)"])
async def test_a_value_above_the_limit_is_not_written(
    make_endpoint: MakeEndpoint,
    issuer: Issuer,
    sql: str,
    monkeypatch: pytest.MonkeyPatch,
    runner: asyncio.Runner,
) -> None:
    written: list[int] = []

    def note(rows: list[Any]) -> str:
        written.append(len(rows))
        return ""

    monkeypatch.setattr(endpoint_module, "rows_writer", lambda *_, **__: note)
    client = Client(make_endpoint(limits=Limits(max_response_bytes=1_000_000)), issuer)
    answer = await client.send({"query": sql})
    assert (answer.status_code, written) == (507, [])


@pytest.mark.exhaustive
async def test_a_large_request_is_read_beside_the_event_loop(
    client: Client, monkeypatch: pytest.MonkeyPatch, runner: asyncio.Runner
) -> None:
    threads: list[int] = []
    read = read_request

    def note(*args: Any, **kw: Any) -> Any:
        threads.append(threading.get_ident())
        return read(*args, **kw)

    monkeypatch.setattr(endpoint_module, "read_request", note)
    for numbers in ([1.5], [1.5] * 100_000):
        assert await client.rows("SELECT cardinality($1::float8[])", numbers) == [[len(numbers)]]
    small, large = threads
    assert small == threading.get_ident() != large


@pytest.mark.exhaustive
def test_the_numbers_of_a_request_take_little_memory() -> None:
    body = b"[" + b",".join([b"1.5"] * 100_000) + b"]"
    tracemalloc.start()
    try:
        numbers = loads(body)
        assert tracemalloc.get_traced_memory()[1] < 200 * len(numbers)
    finally:
        tracemalloc.stop()


@pytest.mark.exhaustive
async def test_types_of_callers_fill_no_memory(client: Client, runner: asyncio.Runner) -> None:
    for number in range(3):
        names = [f"pg_temp.e{number}_{one}" for one in range(500)]
        create = "DO $$ BEGIN " + "".join(f"CREATE TYPE {name} AS ENUM ('a');" for name in names) + " END $$"
        answer = await client.batch(create, "SELECT " + ", ".join(f"'a'::{name}" for name in names))
        assert answer.status_code == 200, answer.text
    assert writer.cache_info().currsize <= 1024


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "queries",
    [
        ["SET LOCAL statement_timeout = 0", "SELECT pg_sleep(60)"],
        ["SELECT pg_sleep(60)"],
        ["SELECT pg_sleep(0.4)"] * 100,
    ],
    ids=["without its timeout", "one statement", "many statements"],
)
async def test_nobody_keeps_a_connection(
    make_endpoint: MakeEndpoint, issuer: Issuer, queries: list[str], signed: Signed, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(limits=Limits(timeout=0.5)), issuer)
    await client.rows("SELECT 1")
    began = time.monotonic()
    answer = await client.batch(*queries)
    assert (answer.status_code, answer.json()["code"]) == (400, "57014")
    assert time.monotonic() - began < 30
    assert await client.rows(ALL_TODOS, subject="bob") == [["bob's"]]
    with signed.admin.connect() as connection:
        sleeping = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        assert connection.scalar(sleeping) == 0


@pytest.mark.exhaustive
async def test_the_warning_has_the_statements_that_separate_callers(
    make_endpoint: MakeEndpoint,
    client: Client,
    issuer: Issuer,
    signed: Signed,
    sql_engine: AsyncEngine,
    caplog: pytest.LogCaptureFixture,
    runner: asyncio.Runner,
) -> None:
    statements = {
        "end": _in_do_block("PERFORM pg_terminate_backend(pg_backend_pid());"),
        "read": _in_do_block("RAISE EXCEPTION '%', (SELECT string_agg(query, ';') FROM pg_stat_activity);"),
        "share": "SELECT lo_from_bytea(0, 'secret')",
    }
    with caplog.at_level(logging.WARNING, "sqla_rls.neon_http"):
        await client.rows("SELECT 1")
    (record,) = caplog.records
    caplog.clear()
    advice = record.getMessage().partition("superuser:\n")[2]
    guide = (ROOT / "docs" / "guide" / "sql_over_http.md").read_text("utf-8")
    for statement in advice.splitlines():
        function = statement.partition(" FUNCTION ")[2].partition("(")[0]
        assert (function or statement.replace("app", "sql_http")) in guide
    assert "bob" not in (await client.error(statements["share"].replace("SELECT", "SELECT 1 /"))).get(
        "message", ""
    )
    with signed.admin.begin() as connection:
        connection.execute(text(advice))
    try:
        await sql_engine.dispose()
        hardened = Client(make_endpoint(), issuer)
        with caplog.at_level(logging.WARNING, "sqla_rls.neon_http"):
            for name in ("end", "share"):
                assert (await hardened.error(statements[name]))["code"] == "42501"
            message = (await hardened.error(statements["read"]))["message"]
        assert "statement" not in message
        assert "SELECT" not in message
        assert caplog.records == []
    finally:
        with signed.admin.begin() as connection:
            connection.execute(text("ALTER ROLE app RESET track_activities"))


UNSAFE = {
    "another role": (
        "CREATE ROLE sql_boss; GRANT sql_boss TO app",
        "become role sql_boss",
        "DROP ROLE sql_boss",
    ),
    "privileges of its own": (
        "CREATE TABLE own (id int); GRANT SELECT (id) ON own TO app",
        "privileges of its own on",
        "DROP TABLE own",
    ),
    "objects in a schema": (
        "GRANT CREATE ON SCHEMA public TO authenticated",
        "create objects in schema public",
        "REVOKE CREATE ON SCHEMA public FROM authenticated",
    ),
    "schemas": (
        "GRANT CREATE ON DATABASE {database} TO PUBLIC",
        "may create schemas",
        "REVOKE CREATE ON DATABASE {database} FROM PUBLIC",
    ),
    "triggers": (
        "GRANT TRIGGER ON todos TO authenticated",
        "create triggers on table todos",
        "REVOKE TRIGGER ON todos FROM authenticated",
    ),
    "triggers of another role": (
        "GRANT TRIGGER ON todos TO anonymous",
        "role anonymous may create triggers on table todos",
        "REVOKE TRIGGER ON todos FROM anonymous",
    ),
    "truncation": (
        "GRANT TRUNCATE ON todos TO authenticated",
        "may truncate table todos",
        "REVOKE TRUNCATE ON todos FROM authenticated",
    ),
}
#: A restrictive policy that names the role of the caller, where a permissive one doesn't.
DROPPABLE = (
    "CREATE POLICY a ON todos TO PUBLIC USING (true); "
    "CREATE POLICY own ON todos AS RESTRICTIVE TO authenticated USING (user_id = auth.user_id())"
)


@table("reason", UNSAFE)
@pytest.mark.exhaustive
async def test_sql_of_callers_needs_a_login_role_of_its_own(
    client: Client, signed: Signed, reason: str, runner: asyncio.Runner
) -> None:
    grant, words, undo = (part.format(database=signed.admin.url.database) for part in UNSAFE[reason])
    with signed.admin.begin() as connection:
        connection.execute(text(grant))
    try:
        with pytest.raises(UnsafeRole, match=words):
            await client.send({"query": "SELECT 1"})
    finally:
        with signed.admin.begin() as connection:
            connection.execute(text(undo))
    assert await client.rows("SELECT 1") == [[1]]


@pytest.mark.exhaustive
async def test_a_restrictive_policy_that_callers_can_drop_is_refused(
    client: Client, signed: Signed, server: Server, runner: asyncio.Runner
) -> None:
    with signed.admin.begin() as connection:
        connection.exec_driver_sql(DROPPABLE)
    reading = """DO $$ BEGIN EXECUTE 'DROP OWNED BY CURRENT_USER';
    RAISE EXCEPTION '%', (SELECT string_agg(task, ',') FROM todos); END $$"""
    if server.version < 16:
        # It leaves the policies of other owners.
        assert (await client.error(reading))["message"] == "alice's"
        return
    with pytest.raises(UnsafeRole, match="restrictive policy own of table todos") as refused:
        await client.send({"query": reading})
    remedy = str(refused.value).partition("superuser: ")[2].partition(";")[0]
    with signed.admin.begin() as connection:
        connection.exec_driver_sql(remedy)
    assert (await client.error(reading))["message"] == "alice's"


@pytest.mark.exhaustive
async def test_a_restrictive_policy_that_the_hardened_database_keeps_is_no_reason(
    client: Client, signed: Signed, runner: asyncio.Runner
) -> None:
    with signed.admin.begin() as connection:
        connection.exec_driver_sql(DROPPABLE)
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; "
            "CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('DROP OWNED') "
            "EXECUTE FUNCTION refuse()"
        )
    assert await client.rows(ALL_TODOS) == [["alice's"]]
    assert (await client.error("DROP OWNED BY CURRENT_USER"))["message"] == "no"
