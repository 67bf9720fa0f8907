"""The functions of schema ``auth`` that verify callers, attacked as somebody who can run any SQL as Alice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from sqla_rls.catalog.query import undone
from tests.support.base64url import decoded
from tests.support.signing import (
    FORGED,
    SIGNATURE,
    Signed,
    as_authenticated,
    ask,
    bind,
    claims_of,
    refusal,
    tasks,
    token,
    traces,
)
from tests.support.suite import first_and_rest, table

UUID = "9c7d6a2e-0b1f-4c3d-8e5f-a1b2c3d4e5f6"


@pytest.fixture
def connection(signed: Signed) -> Iterator[Connection]:
    with as_authenticated(signed) as connection:
        yield connection


def assert_verified_still(connection: Connection, signed: Signed) -> None:
    """Whatever was done before: Alice is Alice, and nobody else can be made up."""
    bind(connection, json.dumps({"sub": "bob"}), "request.jwt.claims")
    bind(connection, signed.token())
    assert ask(connection) == "alice"
    assert tasks(connection) == ["alice's"]
    for forged in (token("A" * 43), signed.token()[:-1] + "=", token(signed.key, header=b'{"alg":"none"}')):
        bind(connection, forged)
        refusal(connection)
    bind(connection, "")
    assert refusal(connection).sqlstate == "28000"


def test_their_types_and_volatility(connection: Connection) -> None:
    """As the extension's, but that a parallel worker may not call them, since it has a pid of its own."""
    rows = connection.execute(
        text(
            "SELECT proname, prorettype::regtype::text, provolatile, proparallel, prosecdef FROM pg_proc"
            " WHERE pronamespace = 'auth'::regnamespace"
        )
    )
    assert {tuple(row) for row in rows} == {
        ("session", "jsonb", "s", "r", True),
        ("jwt", "jsonb", "s", "r", False),
        ("user_id", "text", "s", "r", False),
        ("uid", "uuid", "s", "r", False),
        ("organization", "jsonb", "s", "r", False),
        ("organization_id", "uuid", "s", "r", False),
    }


def test_alice_sees_what_is_hers(connection: Connection, signed: Signed) -> None:
    bind(connection, signed.token())
    assert tasks(connection) == ["alice's"]
    assert ask(connection, "user_id") == "alice"
    assert ask(connection, "uid") is None


@pytest.mark.exhaustive
def test_the_claims_come_whole(connection: Connection, signed: Signed) -> None:
    claims = claims_of(UUID, o={"id": UUID, "rol": "admin"}, n=[1, {"a": None}], ü="\\'$$%s :x ✓")
    bind(connection, token(signed.key, claims))
    assert ask(connection, "session") == ask(connection, "jwt") == claims
    assert str(ask(connection, "uid")) == UUID
    assert ask(connection, "organization") == claims["o"]
    assert str(ask(connection, "organization_id")) == UUID


@pytest.mark.exhaustive
def test_a_token_of_another_library_is_good(connection: Connection, signed: Signed) -> None:
    made = jwt.encode(
        claims_of(), decoded(signed.key), "HS256", headers={"typ": "rls+jwt"}, sort_headers=True
    )
    bind(connection, made)
    assert ask(connection) == "alice"


@pytest.mark.exhaustive
def test_whoever_binds_nothing_or_no_subject_is_nobody(connection: Connection, signed: Signed) -> None:
    for nobody in ("", signed.token(None)):
        bind(connection, nobody)
        assert ask(connection) is None
        assert ask(connection, "uid") is None
        assert tasks(connection) == []
    bind(connection, "")
    assert connection.scalar(text("SELECT auth.session()::text || auth.jwt()::text")) == "nullnull"


@pytest.mark.exhaustive
def test_claims_that_are_not_signed_are_nobodys(connection: Connection, signed: Signed) -> None:
    for nobody in ("{}", '{"role": "anon"}', "[]", '{"sub": null}'):
        bind(connection, nobody, "request.jwt.claims")
        assert ask(connection) is None
        assert tasks(connection) == []
    bind(connection, json.dumps({"sub": "bob"}), "request.jwt.claims")
    assert refusal(connection).sqlstate == "28000"
    bind(connection, signed.token())
    assert tasks(connection) == ["alice's"]


@pytest.mark.exhaustive
def test_a_forged_token_is_nobodys(connection: Connection, signed: Signed, subtests: pytest.Subtests) -> None:
    for name, (forge, message) in FORGED.items():
        with subtests.test(name), undone(connection):
            forged = forge(signed.key)
            assert forged != signed.token()
            bind(connection, forged)
            error = refusal(connection)
            assert error.diag.message_primary is not None
            assert error.diag.message_primary.startswith(message)
            assert signed.key not in str(error)
            with pytest.raises(DBAPIError):
                tasks(connection)


@pytest.mark.exhaustive
def test_a_signature_that_is_not_ours_can_be_told_apart(connection: Connection) -> None:
    bind(connection, token("A" * 43))
    error = refusal(connection)
    assert (error.sqlstate, error.diag.schema_name, error.diag.constraint_name) == (
        "23514",
        "sqla_rls_secret",
        "signing_key",
    )
    assert "another key" in str(error.diag.message_hint)


@pytest.mark.exhaustive
def test_a_token_may_be_of_any_length(connection: Connection, signed: Signed) -> None:
    """It is read in a time that grows with its length, and not at all unless its signature is right."""
    for length in (8_192, 100_000, 1_000_000):
        bind(connection, signed.token(more="x" * length))
        assert ask(connection) == "alice"
        bind(connection, token("A" * 43, claims_of(more="x" * length)))
        assert "invalid JWT signature" in str(refusal(connection))


NOW = "now"  # (NOW, 50): 50 seconds after the test began
_EXP = "'exp' (Expiration) must be an integer representing seconds since unix epoch"
_NBF = "'nbf' (Not Before) must be an integer representing seconds since unix epoch"
_EXPIRED, _EARLY = "Token used after it has expired", "Token used before it is ready"
_PID = "Token belongs to another connection"
_SUBJECT = "invalid subject claim in the JWT"


_NOT_SECONDS: list[Any] = [None, "0", 1.5, -1, True, [], {}, 10**15]
_NOT_SUBJECTS: list[Any] = [None, 5, True, [], ["alice"], {"a": 1}]
_NOT_THIS_PID: list[Any] = [None, 1, 0, -1, "1", [], 1.5, True]


#: The message of the refusal; None if the token is good.
_CLAIMS: list[tuple[dict[str, Any], str | None]] = [
    ({}, _EXP),
    *(({"exp": exp}, _EXP) for exp in _NOT_SECONDS),
    ({"exp": 999_999_999_999_999}, None),
    ({"exp": (NOW, -50)}, None),
    ({"exp": (NOW, -70)}, _EXPIRED),
    ({"exp": 0}, _EXPIRED),
    *(({"exp": (NOW, 60), "nbf": nbf}, _NBF) for nbf in _NOT_SECONDS),
    ({"exp": (NOW, 60), "nbf": (NOW, 50)}, None),
    ({"exp": (NOW, 60), "nbf": (NOW, 70)}, _EARLY),
    ({"exp": (NOW, 60), "nbf": 0}, None),
    *(({"exp": (NOW, 60), "sub": sub}, _SUBJECT) for sub in _NOT_SUBJECTS),
    ({"exp": (NOW, 60), "sub": ""}, None),
    *(({"exp": (NOW, 60), "pid": pid}, _PID) for pid in _NOT_THIS_PID),
]


@first_and_rest("tokens", _CLAIMS)
def test_what_a_token_must_say(
    connection: Connection,
    signed: Signed,
    tokens: list[tuple[dict[str, Any], str | None]],
    subtests: pytest.Subtests,
) -> None:
    for claims, message in tokens:
        now = int(time.time())
        said = {
            name: now + value[1] if isinstance(value, tuple) else value
            for name, value in {"sub": "alice", **claims}.items()
        }
        with subtests.test(str(claims)), undone(connection):
            bind(connection, token(signed.key, json.dumps(said).encode()))
            if message is None:
                assert ask(connection) == said["sub"]
            else:
                assert refusal(connection).diag.message_primary == message


@pytest.mark.exhaustive
def test_a_token_is_good_to_the_end_of_the_transaction_that_began_with_it(signed: Signed) -> None:
    with as_authenticated(signed) as connection:
        bind(connection, signed.token(exp=int(time.time()) - 59))
        assert ask(connection) == "alice"
        time.sleep(2)
        assert ask(connection) == "alice"


@pytest.mark.exhaustive
def test_a_token_for_one_connection_is_good_on_no_other(signed: Signed) -> None:
    with as_authenticated(signed) as one, as_authenticated(signed) as other:
        pid = one.scalar(text("SELECT pg_backend_pid()"))
        bind(one, signed.token(pid=str(pid)))
        with undone(one):
            assert refusal(one).diag.message_primary == _PID
        for connection in (one, other):
            bind(connection, signed.token(pid=pid))
        assert ask(one) == "alice"
        assert refusal(other).diag.message_primary == _PID


@pytest.mark.exhaustive
def test_a_parallel_query_asks_for_the_same_caller(signed: Signed) -> None:
    with signed.admin.begin() as connection:
        connection.execute(text("CREATE TABLE numbers AS SELECT n FROM generate_series(1, 1000) AS n"))
        connection.execute(text("GRANT SELECT ON numbers TO authenticated"))
    with as_authenticated(signed) as connection:
        for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
            connection.execute(text(f"SET LOCAL {name} = 0"))
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        bind(connection, signed.token(pid=pid))
        for caller in ("(SELECT auth.user_id())", "auth.user_id()"):
            query = f"SELECT count(*) FROM numbers WHERE n > 0 AND {caller} = 'alice'"
            plan = "".join(connection.scalars(text(f"EXPLAIN {query}")))
            assert ("Gather" in plan) is caller.startswith("(")
            assert connection.scalar(text(query)) == 1000


def test_until_there_was_a_key_they_are_in_claims_mode(signed: Signed) -> None:
    with signed.admin.begin() as connection:
        connection.execute(text("DELETE FROM sqla_rls_secret.signing_key"))
        connection.execute(text("COMMENT ON TABLE sqla_rls_secret.signing_key IS NULL"))
    with as_authenticated(signed) as connection:
        assert tasks(connection) == []
        bind(connection, json.dumps({"sub": "bob"}), "request.jwt.claims")
        assert tasks(connection) == ["bob's"]
        bind(connection, signed.token())
        refuse_for_want_of_a_key(connection)


@pytest.mark.exhaustive
def test_without_the_key_that_there_was_nobody_is_believed(signed: Signed) -> None:
    with signed.admin.begin() as connection:
        connection.execute(text("DELETE FROM sqla_rls_secret.signing_key"))
    with as_authenticated(signed) as connection:
        assert tasks(connection) == []
        bind(connection, json.dumps({"sub": "bob"}), "request.jwt.claims")
        refuse_for_want_of_a_key(connection)
        bind(connection, signed.token())
        refuse_for_want_of_a_key(connection)


def refuse_for_want_of_a_key(connection: Connection) -> None:
    error = refusal(connection)
    assert (error.sqlstate, error.diag.constraint_name) == ("02000", "signing_key")
    assert "rotate-key" in str(error.diag.message_hint)


# What the functions, and the queries of whoever is next, may name.
_TYPES = ["text", "jsonb", "json", "uuid", "bytea", "boolean", "bool", "bigint", "int8", "integer", "int4"]
_TYPES += ["smallint", "int2", "numeric", "name", "timestamptz", "interval", "regclass", "oid", "record"]
_FUNCTIONS = {
    "current_setting(text, boolean)": "text",
    "coalesce(text, text)": "text",
    "octet_length(text)": "integer",
    "length(text)": "integer",
    "left(text, integer)": "text",
    "right(text, integer)": "text",
    "split_part(text, text, integer)": "text",
    "translate(text, text, text)": "text",
    "repeat(text, integer)": "text",
    "rtrim(text, text)": "text",
    "encode(bytea, text)": "text",
    "decode(text, text)": "bytea",
    "convert_to(text, name)": "bytea",
    "convert_from(bytea, name)": "text",
    "sha256(bytea)": "bytea",
    "jsonb_typeof(jsonb)": "text",
    "to_jsonb(integer)": "jsonb",
    "to_jsonb(anyelement)": "jsonb",
    "pg_backend_pid()": "integer",
    "now()": "timestamptz",
    "replace(text, text, text)": "text",
    "pg_input_is_valid(text, text)": "boolean",
    "strpos(text, text)": "integer",
    "chr(integer)": "text",
    "session()": "jsonb",
}
_OPERATORS = [
    *((name, "text", "text", "boolean") for name in ("=", "<>", "~", "!~", "~~", "!~~", "<", ">")),
    *((name, "bytea", "bytea", "boolean") for name in ("=", "<>")),
    *((name, "timestamptz", "timestamptz", "boolean") for name in (">", "<")),
    *((name, "integer", "integer", "boolean") for name in ("=", "<=", ">")),
    *((name, "numeric", "numeric", "boolean") for name in ("<", ">")),
    *((name, "jsonb", "jsonb", "boolean") for name in ("=", "<>", ">=", "<=")),
    ("?", "jsonb", "text", "boolean"),
    *((name, "integer", "integer", "integer") for name in ("+", "-", "*", "%")),
    *((name, "bigint", "integer", "bigint") for name in ("+", "-")),
    ("||", "bytea", "bytea", "bytea"),
    ("||", "text", "text", "text"),
    ("->", "jsonb", "text", "jsonb"),
    ("->>", "jsonb", "text", "text"),
]


def _plant(connection: Connection, schema: str) -> None:
    """Everything in *schema* that names something else than it seems, and says so when it is used."""
    run = connection.exec_driver_sql
    body = "LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END'"
    run(f"CREATE FUNCTION {schema}.hijacked(text) RETURNS boolean {body}")
    for function, result in _FUNCTIONS.items():
        name, _, arguments = function.partition("(")
        run(f'CREATE FUNCTION {schema}."{name}"({arguments} RETURNS {result} {body}')
    for number, (name, left, right, result) in enumerate(_OPERATORS):
        run(f"CREATE FUNCTION {schema}.operator_{number}({left}, {right}) RETURNS {result} {body}")
        arguments = f"FUNCTION = {schema}.operator_{number}, LEFTARG = {left}, RIGHTARG = {right}"
        run(f"CREATE OPERATOR {schema}.{name.replace('%', '%%')} ({arguments})")
    for relation in ("signing_key", "pg_proc", "pg_settings"):
        run(f"CREATE TABLE {schema}.{relation} (slot int, inner_pad bytea, outer_pad bytea)")
    # Last: their names are those of the types above.
    for type_ in _TYPES:
        run(f'CREATE DOMAIN {schema}."{type_}" AS pg_catalog.text CHECK ({schema}.hijacked(VALUE))')


@table("schema", ["pg_temp", "public"])
@table("path", ["DEFAULT", "pg_temp, public, pg_catalog", "public, pg_temp, pg_catalog", "''"])
def test_hijacked_names_are_not_used(signed: Signed, schema: str, path: str) -> None:
    with signed.admin.begin() as connection:
        connection.execute(text("GRANT CREATE ON SCHEMA public TO app"))
    with signed.app.connect() as connection:
        _plant(connection, schema)
        connection.exec_driver_sql(f"SET LOCAL search_path = {path}")
        for value, setting in (("authenticated", "role"), (signed.token(UUID), "pg_session_jwt.jwt")):
            connection.exec_driver_sql(f"SELECT pg_catalog.set_config('{setting}', '{value}', true)")
        for function in ("user_id", "uid"):
            found = connection.exec_driver_sql(f"SELECT auth.{function}()::pg_catalog.varchar").scalar()
            assert found == UUID
        for function in ("session", "jwt"):
            claims = connection.exec_driver_sql(f"SELECT auth.{function}()").scalar_one()
            assert claims["sub"] == UUID
        forged = token("A" * 43)
        connection.exec_driver_sql(f"SELECT pg_catalog.set_config('pg_session_jwt.jwt', '{forged}', true)")
        assert refusal(connection).diag.message_primary == SIGNATURE


@pytest.mark.exhaustive
def test_the_hijacks_would_be_noticed(signed: Signed) -> None:
    """What they say when they are used."""
    with signed.app.connect() as connection:
        _plant(connection, "pg_temp")
        with pytest.raises(DBAPIError, match="hijacked"):
            connection.exec_driver_sql("SELECT 'x'::text")


_SETTINGS = [
    "standard_conforming_strings = off",
    "backslash_quote = on",
    "bytea_output = 'escape'",
    "DateStyle = 'German, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Pacific/Kiritimati'",
    "TimeZone = '-12'",
    "extra_float_digits = -15",
    "lc_numeric = 'C'",
    "xmlbinary = 'hex'",
    "client_encoding = 'LATIN1'",
    "client_encoding = 'EUC_JP'",
    "quote_all_identifiers = on",
    "transform_null_equals = on",
    "array_nulls = off",
    "check_function_bodies = off",
    "plan_cache_mode = 'force_custom_plan'",
    "plan_cache_mode = 'force_generic_plan'",
    "jit_above_cost = 0",
    "enable_seqscan = off",
    "enable_indexscan = off",
    "default_transaction_read_only = on",
    "transaction_read_only = on",
    "work_mem = '64kB'",
    "constraint_exclusion = on",
    "plpgsql.extra_errors = 'all'",
    "plpgsql.extra_warnings = 'all'",
    "plpgsql.check_asserts = off",
    "client_min_messages = debug5",
    "session_jwt.jwt = 'x'",
    "request.jwt.claim.sub = 'bob'",
    "pg_session_jwt.jwk = '{}'",
    "sqla_rls_secret.signing_key = 'x'",
    "search_path = pg_temp, pg_catalog",
]


@first_and_rest("settings", _SETTINGS)
def test_no_setting_of_a_callers_own_changes_who_they_are(
    signed: Signed, settings: list[str], subtests: pytest.Subtests
) -> None:
    for setting in settings:
        # On a new connection, where no function has been compiled.
        with subtests.test(setting), as_authenticated(signed) as connection:
            connection.exec_driver_sql(f"SET LOCAL {setting}")
            assert_verified_still(connection, signed)


_PRINTING = (
    "client_min_messages = debug5",
    "debug_print_parse = on",
    "debug_print_rewritten = on",
    "debug_print_plan = on",
    "debug_pretty_print = off",
    "log_error_verbosity = verbose",
)


@table(
    "query",
    [
        "SELECT auth.user_id()",
        "EXPLAIN (ANALYZE, VERBOSE, BUFFERS, SETTINGS) SELECT auth.session() FROM todos",
        "EXPLAIN (VERBOSE, FORMAT JSON) SELECT * FROM todos WHERE user_id = auth.user_id()",
        "SELECT pg_get_functiondef('auth.session'::regproc)",
        "SELECT string_agg(query, '') FROM pg_stat_activity",
        "SELECT string_agg(s::text, '') FROM pg_stats AS s",
        "SELECT string_agg(s::text, '') FROM pg_prepared_statements AS s",
        "SELECT string_agg(s::text, '') FROM pg_settings AS s",
    ],
)
def test_nothing_that_a_caller_can_have_printed_holds_the_key(
    connection: Connection, signed: Signed, query: str
) -> None:
    printed: list[str | None] = []
    driver: Any = connection.connection.dbapi_connection
    driver.add_notice_handler(
        lambda notice: printed.extend([notice.message_primary, str(notice.message_detail), notice.context])
    )
    for setting in _PRINTING:
        savepoint = connection.begin_nested()
        try:
            connection.exec_driver_sql(f"SET LOCAL {setting}")
            savepoint.commit()
        except ProgrammingError:
            savepoint.rollback()  # a superuser's
    bind(connection, signed.token())
    printed += [str(row) for row in connection.execute(text(query))]
    bind(connection, token("A" * 43))
    printed.append(str(refusal(connection)))
    assert any("signing_key" in line or "parse tree" in line for line in map(str, printed))
    for trace in traces(signed.key):
        assert trace not in " ".join(map(str, printed))
