"""SQL that tries to leave its role, to become another person, or to leave something to the next one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from sqla_rls.neon_http import sql_endpoint
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import Server
from tests.neon_http.conftest import ALL_TODOS, Client, in_do_block
from tests.support.sessions import Todo, database_with_tables
from tests.support.signing import Signed
from tests.support.suite import first_and_rest

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
    "COMMIT in DO": [in_do_block("COMMIT;"), ALL_TODOS],
    "DO": [in_do_block("RAISE EXCEPTION '%', (SELECT string_agg(task, ',') FROM todos);")],
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
        in_do_block("RAISE EXCEPTION '%', (SELECT count(*) FROM sqla_rls_secret.signing_key);")
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
            answer = await client.batch("SELECT 1", in_do_block(f"EXECUTE $s${statement}$s$;", back))
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
