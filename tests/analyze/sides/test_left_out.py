"""The parts of a side that a scratch database can't have, and the claims that travel without a signature."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.sides import Built, Side, read_dump
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.testing.postgres import Server
from tests.support.servers import cleared_server
from tests.support.suite import find_installation, missing, newest

OWN_ROWS = """
DO $$BEGIN CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN NULL; END$$;
GRANT USAGE ON SCHEMA auth TO reader;
CREATE TABLE own (id int PRIMARY KEY, user_id text DEFAULT auth.user_id());
ALTER TABLE own ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON own TO reader USING (user_id = auth.user_id());
GRANT ALL ON own TO reader;
"""
MISSING = """
CREATE SCHEMA extensions;
CREATE EXTENSION "uuid-ossp" SCHEMA extensions;
CREATE EXTENSION pgcrypto SCHEMA extensions;
CREATE EXTENSION citext;
CREATE TABLE keyed (id uuid PRIMARY KEY DEFAULT extensions.uuid_generate_v4(), name citext);
CREATE TABLE hashed (id int PRIMARY KEY, secret text);
ALTER TABLE hashed ENABLE ROW LEVEL SECURITY;
CREATE POLICY hashed ON hashed USING (secret = encode(extensions.digest('x', 'sha256'), 'hex'));
"""


def fill(server: Server, sql: str) -> URL:
    url = server.url(server.create_database())
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.connection.cursor().execute(sql)
    return url


def visible(connection: Connection, subject: str, table: str = "own") -> list[Any]:
    """The keys of the rows that a caller sees among those of alice and bob."""
    with connection.begin_nested() as savepoint:
        connection.execute(text(f"INSERT INTO {table} VALUES (1, 'alice'), (2, 'bob')"))
        connection.execute(
            text(
                "SELECT set_config('request.jwt.claims', :claims, true), set_config('role', 'reader', true)"
            ),
            {"claims": json.dumps({"sub": subject})},
        )
        found = list(connection.scalars(text(f"SELECT id FROM {table}")))
        savepoint.rollback()
    return found


@pytest.fixture(scope="module")
def old_server() -> Iterator[Server]:
    """A server with extensions that the newest one lacks."""
    with cleared_server(find_installation(15)) as server:
        yield server


def extensions(server: Server) -> set[str]:
    with create_engine(server.url(), poolclass=NullPool).connect() as connection:
        return set(connection.scalars(text("SELECT name FROM pg_available_extensions")))


@pytest.fixture(scope="module")
def built_without(old_server: Server) -> Iterator[Built]:
    if not {"uuid-ossp", "pgcrypto", "citext"} <= extensions(old_server):
        missing("contrib", "apt install postgresql-15")
    with Side.parse(fill(old_server, MISSING).render_as_string()).build() as built:
        yield built


@pytest.mark.exhaustive
def test_functions_of_missing_extensions_have_stand_ins(built_without: Built) -> None:
    with cleared_server() as server:
        if {"uuid-ossp", "pgcrypto"} & extensions(server):
            pytest.skip("the newest server has the extensions")
    connection = built_without.connection
    assert built_without.left_out == (
        f"The database runs on PostgreSQL 15, and the scratch database on PostgreSQL {newest()}.",
        "The scratch server lacks the extension pgcrypto.",
        "The scratch server lacks the extension uuid-ossp.",
        "public.hashed calls extensions.digest(text,text), a function of a missing extension.",
    )
    assert set(built_without.incomplete) == {"public.hashed"}
    connection.execute(text("INSERT INTO keyed (name) VALUES ('x')"))
    assert connection.scalar(text("SELECT count(*) FROM keyed WHERE name = 'X' AND id IS NOT NULL")) == 1
    connection.rollback()


@pytest.fixture
def edited(own_server: Server, tmp_path: Path) -> Callable[[str, str, str], Side]:
    """Makes a database, replaces a word of its snapshot, and returns the side."""

    def make(sql: str, word: str, by: str) -> Side:
        path = tmp_path / "edited.json"
        path.write_text(read_dump(fill(own_server, sql)).to_json().replace(word, by))
        return Side.parse(str(path))

    return make


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    with cleared_server() as server:
        yield server


def test_columns_of_missing_types_are_text(edited: Callable[[str, str, str], Side]) -> None:
    sql = """
    CREATE EXTENSION citext;
    CREATE TABLE "T" (id int PRIMARY KEY, name citext, names citext[]);
    ALTER TABLE "T" ENABLE ROW LEVEL SECURITY;
    CREATE POLICY named ON "T" USING (id = 1);
    CREATE TABLE compared (name citext);
    CREATE POLICY compared ON compared USING (name = 'x');
    """
    with edited(sql, "citext", "notext").build() as built:
        assert built.left_out[:2] == (
            "The scratch server lacks the extension notext.",
            "The type public.notext is missing here: its columns are text.",
        )
        query = """SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
                     FROM pg_attribute WHERE attrelid = '"T"'::regclass AND attnum > 0"""
        assert built.connection.scalar(text(query)) == "integer, text, text[]"
        assert built.connection.scalar(text("SELECT polname FROM pg_policy")) == "named"
        # The operator of the type can't be replaced.
        assert set(built.incomplete) == {"public.compared"}


@pytest.mark.exhaustive
def test_a_policy_that_cannot_be_created_makes_its_table_incomplete(
    edited: Callable[[str, str, str], Side],
) -> None:
    sql = """
    CREATE TABLE "T" (id int PRIMARY KEY);
    CREATE TABLE fine (id int PRIMARY KEY);
    CREATE POLICY odd ON "T" USING (pg_backend_pid() > 0);
    """
    with edited(sql, "pg_backend_pid", "pg_backend_pod").build() as built:
        assert set(built.incomplete) == {'public."T"'}
        (sentence,) = built.left_out
        assert sentence == (
            'This statement fails in the scratch database: CREATE POLICY odd ON public."T" '
            "USING ((pg_backend_pod() > 0)) … (function pg_backend_pod() does not exist)."
        )
        assert built.connection.scalar(text("SELECT to_regclass('fine')")) == "fine"


@pytest.mark.exhaustive
def test_signed_claims_travel_unsigned(own_server: Server) -> None:
    url = own_server.url(own_server.create_database())
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(CreateAuthFunctions(signed=True))
        connection.connection.cursor().execute(OWN_ROWS)
        key = rotate_signing_key(connection)
    side = Side.parse(url.render_as_string())
    assert key not in side.dump().to_json()
    with side.build() as built:
        assert visible(built.connection, "alice") == [1]
        assert built.connection.scalar(text("SELECT to_regnamespace('sqla_rls_secret')")) is None
        assert built.left_out[-1].startswith("The functions of schema auth verify no signature")


@pytest.mark.exhaustive
def test_claims_of_pg_session_jwt_travel_unsigned(old_server: Server) -> None:
    if "pg_session_jwt" not in extensions(old_server):
        missing("pg_session_jwt", "install it for PostgreSQL 15")
    owned = "DROP ROLE IF EXISTS keeper; CREATE ROLE keeper; ALTER TABLE own OWNER TO keeper;"
    url = fill(old_server, "CREATE EXTENSION pg_session_jwt;" + OWN_ROWS + owned)
    with Side.parse(url.render_as_string()).build() as built:
        assert visible(built.connection, "alice") == [1]
        assert visible(built.connection, "carol") == []
        assert any("verify no signature" in one for one in built.left_out)
        # As after a migration.
        query = """SELECT DISTINCT proowner::regrole::text FROM pg_proc
                    WHERE pronamespace = 'auth'::regnamespace"""
        assert built.connection.scalars(text(query)).all() == ["keeper"]
        assert built.incomplete == {}


@pytest.mark.exhaustive
def test_auth_functions_of_another_program_stay(own_server: Server) -> None:
    sql = """
    CREATE SCHEMA auth;
    CREATE FUNCTION auth.uid() RETURNS text LANGUAGE sql STABLE
      AS $$ SELECT current_setting('request.jwt.claims', true)::json ->> 'sub' $$;
    CREATE FUNCTION auth.user_id() RETURNS text LANGUAGE sql STABLE AS 'SELECT auth.uid()';
    """
    with Side.parse(fill(own_server, sql + OWN_ROWS).render_as_string()).build() as built:
        assert visible(built.connection, "bob") == [2]
        assert built.left_out == ()
        source = built.connection.scalar(text("SELECT prosrc FROM pg_proc WHERE proname = 'user_id'"))
        assert source == "SELECT auth.uid()"
