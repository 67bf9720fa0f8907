"""The functions of schema ``auth``, in claims mode: the extension's and the portable ones.

What is asserted is the contract of pg_session_jwt 0.5.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from sqla_rls.ddl import CreateAuthFunctions, DropAuthFunctions

Ask = Callable[[str | None, str], Any]
UUID = "9c7d6a2e-0b1f-4c3d-8e5f-a1b2c3d4e5f6"


@pytest.fixture(params=["as the server offers them", "portable"])
def connection(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        if request.param == "portable":
            # A schema that is there already keeps the extension out.
            connection.execute(text("CREATE SCHEMA auth"))
        connection.execute(CreateAuthFunctions())
        yield connection


@pytest.fixture
def ask(connection: Connection) -> Ask:
    """What ``auth.{function}()`` says when *claims* are bound."""

    def ask(claims: str | None, function: str) -> Any:
        if claims is not None:
            connection.execute(
                text("SELECT set_config('request.jwt.claims', :claims, true)"), {"claims": claims}
            )
        return connection.execute(text(f"SELECT to_jsonb(auth.{function}())")).scalar()

    return ask


def test_their_types_and_volatility(connection: Connection) -> None:
    rows = connection.execute(
        text(
            "SELECT proname, prorettype::regtype::text, provolatile, proparallel, prosecdef FROM pg_proc"
            " WHERE pronamespace = 'auth'::regnamespace AND provolatile <> 'v'"
        )
    )
    assert {tuple(row) for row in rows} == {
        ("session", "jsonb", "s", "s", False),
        ("jwt", "jsonb", "s", "s", False),
        ("user_id", "text", "s", "s", False),
        ("uid", "uuid", "s", "s", False),
        ("organization", "jsonb", "s", "s", False),
        ("organization_id", "uuid", "s", "s", False),
    }


@pytest.mark.parametrize("claims", [None, "", "null", "5", '"text"', "[]", '["sub"]', "{}"])
@pytest.mark.parametrize("function", ["user_id", "uid", "organization", "organization_id"])
def test_nobody_without_claims(ask: Ask, claims: str | None, function: str) -> None:
    assert ask(claims, function) is None


@pytest.mark.parametrize("claims", [None, "", "null"])
def test_no_claims_are_json_null_not_sql_null(connection: Connection, ask: Ask, claims: str | None) -> None:
    ask(claims, "user_id")
    assert connection.execute(text("SELECT auth.session()::text, auth.jwt()::text")).one() == ("null", "null")


def test_the_claims_come_whole(ask: Ask) -> None:
    claims = {"sub": "alice", "role": "authenticated", "n": [1, {"a": None}], "ü": "\\'$$%s :x"}
    assert ask(json.dumps(claims), "session") == ask(None, "jwt") == claims


@pytest.mark.parametrize(
    ("sub", "user_id", "uid"),
    [
        ("alice", "alice", None),
        ("", "", None),
        ("it's; DROP TABLE x", "it's; DROP TABLE x", None),
        (UUID, UUID, UUID),
        (UUID.upper(), UUID.upper(), UUID),
        (UUID.replace("-", ""), UUID.replace("-", ""), UUID),
        (f"{{{UUID}}}", f"{{{UUID}}}", UUID),
        (f"urn:uuid:{UUID}", f"urn:uuid:{UUID}", UUID),
        (f"{UUID}\n", f"{UUID}\n", None),
        (f" {UUID}", f" {UUID}", None),
        (UUID[:-1], UUID[:-1], None),
        (5, None, None),
        (None, None, None),
        ({"a": 1}, None, None),
        (["alice"], None, None),
        (True, None, None),
    ],
)
def test_the_subject(ask: Ask, sub: Any, user_id: str | None, uid: str | None) -> None:
    claims = json.dumps({"sub": sub})
    assert ask(claims, "user_id") == user_id
    assert ask(claims, "uid") == uid


@pytest.mark.parametrize(
    ("o", "organization", "organization_id"),
    [
        ({"id": UUID, "rol": "admin"}, {"id": UUID, "rol": "admin"}, UUID),
        ({"id": "acme"}, {"id": "acme"}, None),
        ({"id": 5}, {"id": 5}, None),
        ({}, {}, None),
        ("acme", None, None),
        (None, None, None),
        ([UUID], None, None),
    ],
)
def test_the_organization(ask: Ask, o: Any, organization: Any, organization_id: str | None) -> None:
    claims = json.dumps({"sub": "alice", "o": o})
    assert ask(claims, "organization") == organization
    assert ask(claims, "organization_id") == organization_id


def test_what_is_not_json_is_nobody(engine: Engine, connection: Connection, ask: Ask) -> None:
    extension = connection.execute(
        text("SELECT count(*) FROM pg_extension WHERE extname = 'pg_session_jwt'")
    ).scalar()
    if not extension and engine.dialect.server_version_info < (16,):  # type: ignore[operator]
        # Before 16 a function that may run in parallel can't tell: it refuses.
        with pytest.raises(Exception, match="invalid input syntax for type json"):
            ask("{sub: alice}", "user_id")
    else:
        assert ask("{sub: alice}", "user_id") is None


def test_what_a_caller_leaves_in_the_search_path_changes_nothing(connection: Connection, ask: Ask) -> None:
    for statement in (
        "CREATE SCHEMA evil",
        "CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE sql RETURN '{}'",
        "CREATE FUNCTION evil.other_text(jsonb, text) RETURNS text LANGUAGE sql RETURN 'bob'",
        "CREATE OPERATOR evil.->> (FUNCTION = evil.other_text, LEFTARG = jsonb, RIGHTARG = text)",
        "CREATE DOMAIN pg_temp.jsonb AS text CHECK (false)",
        "CREATE DOMAIN pg_temp.uuid AS text CHECK (false)",
        "SET LOCAL search_path = pg_temp, evil, pg_catalog",
    ):
        connection.execute(text(statement))
    assert ask(json.dumps({"sub": UUID}), "user_id") == UUID
    assert connection.execute(text("SELECT auth.uid()::pg_catalog.text")).scalar() == UUID


def test_a_parallel_worker_asks_for_the_same_caller(connection: Connection, ask: Ask) -> None:
    assert ask(json.dumps({"sub": UUID}), "user_id") == UUID
    forced = connection.scalar(
        text("SELECT name FROM pg_settings WHERE name IN ('debug_parallel_query', 'force_parallel_mode')")
    )
    for statement in (
        "CREATE TABLE owners AS SELECT auth.user_id() AS id, auth.uid() AS key, auth.session() AS claims",
        f"SET LOCAL {forced} = on",
    ):
        connection.execute(text(statement))
    query = "SELECT count(*) FROM owners WHERE (id, key, claims) = (auth.user_id(), auth.uid(), auth.jwt())"
    assert "Gather" in "".join(connection.execute(text(f"EXPLAIN {query}")).scalars())
    assert connection.scalar(text(query)) == 1


def test_it_makes_nothing_twice_and_drops_only_its_own(engine: Engine) -> None:
    functions = text("SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace('auth')")
    with engine.connect() as connection:
        connection.execute(CreateAuthFunctions())
        made = connection.scalar(functions)
        connection.execute(CreateAuthFunctions())
        assert connection.scalar(functions) == made
        connection.execute(DropAuthFunctions())
        assert connection.scalar(text("SELECT to_regnamespace('auth')")) is None
        connection.execute(DropAuthFunctions())

        connection.execute(text("CREATE SCHEMA auth"))
        connection.execute(text("CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql RETURN NULL::uuid"))
        connection.execute(CreateAuthFunctions())
        assert connection.scalar(functions) == 6
        assert connection.scalar(text("SELECT obj_description('auth.uid()'::regprocedure)")) is None
        connection.execute(DropAuthFunctions())
        assert connection.scalar(functions) == 1
