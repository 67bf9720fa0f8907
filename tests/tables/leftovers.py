"""What one caller leaves on a connection for the next, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias
from uuid import UUID, uuid4

from sqlalchemy import Engine, Uuid, func, literal, select, text
from sqlalchemy.orm import Session

from tests.support.sessions import ANYTHING, CALLER, TASKS, Todo

#: "open": the next caller finds it.  "closed": they work as before.  "denied": Postgres doesn't let it be
#: left.
Verdict: TypeAlias = Literal["open", "closed", "denied"]
#: What the next caller does, and finds; the Engine is the superuser's.
Look: TypeAlias = Callable[[Session, Engine], object]


class Verdicts(NamedTuple):
    """By how the two are bound."""

    reset_none: Verdict
    with_begin: Verdict  # and pipeline
    one_shot: Verdict
    statement: Verdict
    reset_all: Verdict  # with_begin, pipeline and one-shot


@dataclass(frozen=True, kw_only=True)
class Leftover:
    name: str
    #: What the last caller injects.
    sql: tuple[str, ...]
    look: Look
    verdicts: Verdicts
    #: What else closes it: SQL of the database owner's, or words.
    hint_sql: str = ""
    hint: str = ""
    #: How often the next caller has looked before.
    looks: int = 1
    #: The drivers whose pool gives up the connection that it is left on, if RESET ALL comes too late.
    ends_connections_of: tuple[str, ...] = ()


def reads(session: Session, admin: Engine) -> object:
    return session.scalars(TASKS).all()


def writes(session: Session, admin: Engine) -> object:
    """Whether it arrives, and what else was kept of it."""
    todo = Todo(task=f"{uuid4()}")
    session.add(todo)
    session.commit()
    with admin.begin() as connection:
        arrived = connection.execute(text("DELETE FROM todos WHERE task = :task"), {"task": todo.task})
    return arrived.rowcount, loot(session, admin)


def reads_by_uuid(session: Session, admin: Engine) -> object:
    found = session.scalars(select(literal(UUID(int=1), Uuid())))
    return found.all(), loot(session, admin)


def reads_with_loot(session: Session, admin: Engine) -> object:
    return reads(session, admin), loot(session, admin)


def loot(session: Session, admin: Engine) -> object:
    """How many copies of what was somebody's alone there are."""
    session.commit()
    with admin.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM pg_largeobject_metadata"))


def locks(session: Session, admin: Engine) -> object:
    session.execute(ANYTHING)
    with admin.connect() as connection:
        return connection.scalar(text("SELECT pg_try_advisory_xact_lock(20261123)"))


def caller(session: Session, admin: Engine) -> object:
    return session.execute(CALLER).one(), session.scalar(text("SELECT auth.user_id()"))


def foresees(session: Session, admin: Engine) -> object:
    """Whether random() is what setseed(0.5) makes it."""
    found = session.scalar(text("SELECT random()"))
    with admin.connect() as connection:
        connection.execute(text("SELECT setseed(0.5)"))
        return found == connection.scalar(text("SELECT random()"))


def scalar(sql: str) -> Look:
    return lambda session, admin: session.scalar(text(sql))


def settings(*names: str) -> Look:
    return scalar("SELECT concat_ws(', ', " + ", ".join(f"current_setting('{name}')" for name in names) + ")")


_COPY = "lo_from_bytea(0, convert_to(current_setting('request.jwt.claims', true), 'UTF8'))"
_TABLE = "CREATE TEMP TABLE todos (LIKE public.todos INCLUDING ALL)"
_TRIGGER = (
    f"""CREATE FUNCTION pg_temp.pass_on() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            PERFORM {_COPY};
            INSERT INTO public.todos (task) VALUES (NEW.task) RETURNING * INTO NEW;
            RETURN NEW;
        END$$""",
    """CREATE TRIGGER pass_on INSTEAD OF INSERT ON pg_temp.todos
           FOR EACH ROW EXECUTE FUNCTION pg_temp.pass_on()""",
)

_BY_BEGIN = Verdicts("open", "closed", "closed", "open", "closed")
_BY_PATH = Verdicts("open", "closed", "closed", "closed", "closed")
_BY_STRICT = Verdicts("open", "open", "open", "open", "closed")
_BY_MODES = Verdicts("open", "closed", "open", "open", "closed")
_NEVER = Verdicts("closed", "closed", "closed", "closed", "closed")
_DENIED = Verdicts("denied", "denied", "denied", "denied", "denied")
_ALWAYS = Verdicts("open", "open", "open", "open", "open")

_REVOKE_TEMPORARY = "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC"
_REVOKE_LARGE_OBJECTS = (
    "REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC"
)

LEFTOVERS = [
    Leftover(
        name="role, claims or token, set for the session",
        sql=(
            "SELECT set_config('role', 'anonymous', false)",
            """SELECT set_config('request.jwt.claims', '{"sub": "alice"}', false)""",
            "SELECT set_config('pg_session_jwt.jwt', 'e30.eyJzdWIiOiJhbGljZSJ9.', false)",
        ),
        look=caller,
        verdicts=_NEVER,
    ),
    Leftover(
        name="a temporary table named like one of yours, which catches rows",
        sql=(_TABLE, "GRANT ALL ON pg_temp.todos TO PUBLIC"),
        look=writes,
        verdicts=_BY_PATH,
        hint_sql=_REVOKE_TEMPORARY,
    ),
    Leftover(
        name="a temporary view that shows invented rows",
        sql=("CREATE TEMP VIEW todos AS SELECT 1 AS id, 'bob' AS user_id, 'planted' AS task",),
        look=reads,
        verdicts=_BY_PATH,
        hint_sql=_REVOKE_TEMPORARY,
    ),
    Leftover(
        name="a temporary view with a trigger, which copies rows, claims or token, and passes the rows on",
        sql=("CREATE TEMP VIEW todos AS SELECT * FROM public.todos", *_TRIGGER),
        look=writes,
        verdicts=_BY_PATH,
        hint_sql=_REVOKE_TEMPORARY,
    ),
    Leftover(
        name="a temporary table with a rule, which copies rows",
        sql=(
            _TABLE,
            "CREATE TEMP TABLE copies (copy oid)",
            f"""CREATE RULE copied AS ON INSERT TO pg_temp.todos
                    DO ALSO INSERT INTO pg_temp.copies SELECT {_COPY}""",
        ),
        look=writes,
        verdicts=_BY_PATH,
        hint_sql=_REVOKE_TEMPORARY,
    ),
    Leftover(
        name="a temporary table with a policy, which copies rows",
        sql=(
            _TABLE,
            "INSERT INTO pg_temp.todos (user_id, task) VALUES ('bob', 'bob''s')",
            "ALTER TABLE pg_temp.todos ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY copied ON pg_temp.todos USING ({_COPY} IS NOT NULL)",
        ),
        look=reads_with_loot,
        verdicts=_BY_PATH,
        hint_sql=_REVOKE_TEMPORARY,
    ),
    Leftover(
        name="a temporary domain named like a type, such as `uuid`, whose CHECK copies at each `::uuid`",
        sql=(f"CREATE DOMAIN pg_temp.uuid AS pg_catalog.uuid CHECK ({_COPY} IS NOT NULL)",),
        look=reads_by_uuid,
        verdicts=_BY_PATH,
        hint_sql=_REVOKE_TEMPORARY,
    ),
    Leftover(
        name="temporary functions and operators",
        sql=(
            """CREATE FUNCTION pg_temp.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''planted'''""",
            """CREATE FUNCTION pg_temp.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'""",
            "CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.same)",
        ),
        look=scalar("SELECT lower('Bob'::text) || ('a'::text = 'b'::text)"),
        verdicts=_NEVER,
    ),
    Leftover(
        name="`search_path`",
        sql=("SET search_path = pg_catalog",),
        look=reads,
        verdicts=_BY_PATH,
    ),
    Leftover(
        name="`statement_timeout`",
        sql=("SET statement_timeout = '1h'",),
        look=settings("statement_timeout"),
        verdicts=_BY_BEGIN,
    ),
    Leftover(
        name="`lock_timeout`, `idle_in_transaction_session_timeout`",
        sql=("SET lock_timeout = '10s'", "SET idle_in_transaction_session_timeout = '60s'"),
        look=settings("lock_timeout", "idle_in_transaction_session_timeout"),
        verdicts=_BY_BEGIN,
    ),
    Leftover(
        name="`DateStyle`",
        sql=("SET DateStyle = 'ISO, DMY'",),
        look=scalar("SELECT date_part('month', '01/02/2026'::text::date)"),
        verdicts=_BY_BEGIN,
    ),
    Leftover(
        name="`TimeZone`",
        sql=("SET TimeZone = 'Asia/Tokyo'",),
        look=scalar("SELECT date_part('hour', '2026-01-01 12:00+00'::timestamptz)"),
        verdicts=_BY_BEGIN,
    ),
    Leftover(
        name="`client_encoding`",
        sql=("SET client_encoding = 'LATIN1'",),
        ends_connections_of=("asyncpg",),
        # The last sign isn't in Latin-1; of the others, the bytes of Latin-1 are one letter of UTF-8.
        look=lambda session, admin: [session.scalar(select(func.octet_length(sent))) for sent in ("Ã¤", "€")],
        verdicts=_BY_BEGIN,
    ),
    Leftover(
        name="`standard_conforming_strings`",
        sql=("SET standard_conforming_strings = off", "SET escape_string_warning = off"),
        # Never the same text, which would be parsed already.
        look=lambda session, admin: session.scalar(text(rf"SELECT length('\\') AS n{uuid4().hex}")),
        verdicts=_BY_BEGIN,
    ),
    Leftover(
        name="`row_security`",
        sql=("SET row_security = off",),
        look=reads,
        verdicts=_BY_BEGIN,
    ),
    Leftover(
        name="`synchronous_commit`, `work_mem`, `debug_print_plan`, `log_parameter_max_length_on_error`",
        sql=(
            "SET synchronous_commit = off",
            "SET work_mem = '1GB'",
            "SET debug_print_plan = on",
            "SET log_parameter_max_length_on_error = -1",
        ),
        look=settings(
            "synchronous_commit", "work_mem", "debug_print_plan", "log_parameter_max_length_on_error"
        ),
        verdicts=_BY_BEGIN,
    ),
    Leftover(
        name="megabytes in a setting with an invented name",
        sql=("SELECT set_config('planted.value', repeat('x', 1000000), false) IS NULL",),
        look=scalar("SELECT coalesce(length(current_setting('planted.value', true)), 0)"),
        verdicts=_BY_BEGIN,
    ),
    Leftover(
        name="`default_transaction_read_only`",
        sql=("SET default_transaction_read_only = on",),
        look=writes,
        verdicts=_BY_MODES,
    ),
    Leftover(
        name="`default_transaction_isolation`, `default_transaction_deferrable`",
        sql=("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE DEFERRABLE",),
        look=settings("transaction_isolation", "transaction_deferrable"),
        verdicts=_BY_MODES,
    ),
    Leftover(
        name="other SQL under the names of the driver's prepared statements, which runs as the next caller",
        sql=(
            """DO $$DECLARE one record; BEGIN
                 FOR one IN SELECT name FROM pg_prepared_statements WHERE statement ~ 'FROM todos' LOOP
                   EXECUTE format('DEALLOCATE %I', one.name);
                   EXECUTE format('PREPARE %I AS SELECT ''planted''::text', one.name);
                 END LOOP;
               END$$""",
        ),
        look=reads,
        looks=7,
        verdicts=_BY_STRICT,
        hint="`prepare_threshold=None`; asyncpg: `statement_cache_size=0, prepared_statement_cache_size=0`",
    ),
    Leftover(
        name="`setseed()`, which makes `random()` predictable; `gen_random_uuid()` stays random",
        sql=("SELECT setseed(0.5)",),
        look=foresees,
        verdicts=_BY_PATH,
    ),
    Leftover(
        name="held cursors",
        sql=("DECLARE planted CURSOR WITH HOLD FOR SELECT 1",),
        look=scalar("SELECT count(*) FROM pg_cursors WHERE name = 'planted'"),
        verdicts=_BY_STRICT,
    ),
    Leftover(
        name="LISTEN",
        sql=("LISTEN planted",),
        look=scalar("SELECT count(*) FROM pg_listening_channels()"),
        verdicts=_BY_STRICT,
    ),
    Leftover(
        name="advisory locks",
        sql=("SELECT pg_advisory_lock(20261123) IS NULL",),
        look=locks,
        verdicts=_BY_STRICT,
    ),
    Leftover(
        name="large objects",
        sql=(f"SELECT {_COPY}",),
        look=lambda session, admin: loot(session, admin),
        verdicts=_ALWAYS,
        hint_sql=_REVOKE_LARGE_OBJECTS,
    ),
    Leftover(
        name="an open transaction",
        sql=("BEGIN", "INSERT INTO public.todos (user_id, task) VALUES ('alice', 'planted')"),
        look=scalar("SELECT count(*) FROM todos WHERE task = 'planted'"),
        verdicts=_NEVER,
    ),
    Leftover(
        name="`session_replication_role`",
        sql=("SET session_replication_role = replica",),
        look=settings("session_replication_role"),
        verdicts=_DENIED,
    ),
    Leftover(
        name="SET SESSION AUTHORIZATION",
        sql=("SET SESSION AUTHORIZATION authenticated_login",),
        look=scalar("SELECT session_user"),
        verdicts=_DENIED,
    ),
]
