"""Callers may create functions in schema public: no command that only reads the catalog takes one of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.ddl.script import PINNED
from tests.support.servers import cleared_server

_SETUP = """
CREATE ROLE anonymous;
CREATE ROLE authenticated;
GRANT USAGE ON SCHEMA auth TO PUBLIC;
CREATE SCHEMA shop;
CREATE TABLE shop.docs (id int PRIMARY KEY, owner_id text NOT NULL);
ALTER TABLE shop.docs ENABLE ROW LEVEL SECURITY;
GRANT USAGE ON SCHEMA shop TO authenticated;
GRANT SELECT ON shop.docs TO authenticated;
CREATE POLICY own ON shop.docs TO authenticated USING (owner_id = auth.user_id());
"""
#: Each fits the arguments of a query better than the function or the operator of Postgres does.
_BETTER = """
DO $do$
DECLARE
  one text;
BEGIN
  FOREACH one IN ARRAY ARRAY[
    'quote_ident(name) RETURNS text', 'unnest(oid[]) RETURNS SETOF oid', 'unnest(text[]) RETURNS SETOF text',
    'format(text, name, name) RETURNS text', 'concat_ws(text, text, text, text) RETURNS text',
    'string_agg(text, varchar) RETURNS text', 'better(oid, regclass) RETURNS boolean',
    'better(oid, regtype) RETURNS boolean', 'better(oid, regnamespace) RETURNS boolean',
    'better(oid, integer) RETURNS boolean', 'better(name, name) RETURNS boolean',
    'better(smallint, integer) RETURNS boolean'] LOOP
    EXECUTE 'CREATE FUNCTION public.' || one ||
      ' LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION ''taken''; END $f$';
  END LOOP;
  FOREACH one IN ARRAY ARRAY['oid,regclass', 'oid,regtype', 'oid,regnamespace', 'oid,integer'] LOOP
    EXECUTE pg_catalog.format(
      CAST('CREATE OPERATOR public.= (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.better)' AS text),
      split_part(one, ',', 1), split_part(one, ',', 2));
  END LOOP;
  CREATE OPERATOR public.>= (LEFTARG = oid, RIGHTARG = integer, FUNCTION = public.better);
  CREATE OPERATOR public.!~ (LEFTARG = name, RIGHTARG = name, FUNCTION = public.better);
END $do$
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with cleared_server() as server:
        server.create_database("app")
        with create_engine(server.url("app"), poolclass=NullPool).begin() as connection:
            connection.execute(CreateAuthFunctions())
            for statement in _SETUP.strip().split(";\n"):
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(_BETTER, execution_options={"no_parameters": True})
        yield server.url("app").render_as_string(hide_password=False)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "command", [["lint", "--select", "openings"], ["snapshot"]], ids=["lint", "snapshot"]
)
def test_a_command_takes_no_function_of_a_caller(url: str, command: list[str]) -> None:
    name, *options = command

    done = CliRunner().invoke(main, [name, url, *options], catch_exceptions=False)

    assert done.exit_code in (0, 1), done.output
    assert "ERROR" not in done.output
    assert name == "snapshot" or "taken" not in done.output


@pytest.mark.exhaustive
def test_the_pinned_settings_take_no_function_of_a_caller(url: str) -> None:
    engine = create_engine(url, poolclass=NullPool, use_native_hstore=False)
    with engine.connect() as connection:
        connection.execute(text(f"SELECT {PINNED}"))
        path = connection.scalar(text("SELECT pg_catalog.current_setting('search_path')"))
    assert path == "public, pg_temp"


@pytest.mark.exhaustive
def test_a_plain_query_of_the_catalog_would_take_one(url: str) -> None:
    # Without this, the tests above could not fail.
    engine = create_engine(url, poolclass=NullPool, use_native_hstore=False)
    with engine.connect() as connection, pytest.raises(Exception, match="taken"):
        connection.scalar(text("SELECT count(*) FROM pg_class WHERE oid = 'pg_class'::regclass"))
