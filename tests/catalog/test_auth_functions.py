"""The functions of schema ``auth``, in claims mode, as callers and migrations meet them.

What they say of which claims is in test_conformance.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from sqla_rls.catalog.auth_functions import auth_functions
from sqla_rls.ddl.auth_functions import CreateAuthFunctions, DropAuthFunctions
from sqla_rls.snapshot import AUTH_FUNCTIONS

pytestmark = pytest.mark.every_postgres

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


@pytest.mark.exhaustive
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


_BODY = text("SELECT prosrc FROM pg_proc WHERE oid = 'auth.uid()'::regprocedure")


def test_a_comment_by_hand_leaves_them_its_own(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("CREATE SCHEMA auth"))
        connection.execute(CreateAuthFunctions())
        body = connection.scalar(_BODY)
        for comment in ("'who is calling'", "NULL"):
            connection.execute(text(f"COMMENT ON FUNCTION auth.uid() IS {comment}"))
            found = auth_functions(connection)
            assert (found.managed, found.foreign) == (frozenset(AUTH_FUNCTIONS), frozenset())
            connection.execute(CreateAuthFunctions())
            assert connection.scalar(_BODY) == body
            kept = connection.scalar(text("SELECT obj_description('auth.uid()'::regprocedure)"))
            assert kept == ("who is calling" if "who" in comment else "made by sqla_rls")
        connection.execute(text("COMMENT ON FUNCTION auth.uid() IS 'who is calling'"))
        connection.execute(DropAuthFunctions())
        assert connection.scalar(text("SELECT to_regprocedure('auth.uid()')")) is None


@pytest.mark.parametrize("body", ["", "END $function$", " BEGIN RETURN NULL; END "])
@pytest.mark.exhaustive
def test_a_function_of_something_else_is_never_taken_for_its_own(engine: Engine, body: str) -> None:
    with engine.connect() as connection:
        connection.execute(text("CREATE SCHEMA auth"))
        connection.execute(text("SET LOCAL check_function_bodies = off"))
        connection.execute(
            text(f"CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE plpgsql AS $body${body}$body$")
        )
        connection.execute(CreateAuthFunctions())
        assert auth_functions(connection).foreign == {"uid"}
        assert connection.scalar(_BODY) == body
        connection.execute(DropAuthFunctions())
        assert connection.scalar(_BODY) == body
