"""Names and values of a database don't command the terminal, and don't reorder what a reviewer reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from tests.support.servers import cleared_server

#: The title of a terminal's window, in both codings of its first character, and the reversal of what follows.
_NAME = "\x1b]0;taken\x07\x9b31m\u202elist"
_SETUP = f"""
CREATE ROLE anonymous;
CREATE ROLE authenticated;
GRANT USAGE ON SCHEMA auth TO PUBLIC;
CREATE TABLE "{_NAME}" (id int PRIMARY KEY, owner_id text);
INSERT INTO "{_NAME}" VALUES (1, '\x9b2J');
ALTER TABLE "{_NAME}" ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON "{_NAME}" TO authenticated;
CREATE POLICY p ON "{_NAME}" TO authenticated USING (owner_id::int = 1);
CREATE VIEW "{_NAME} of all" AS SELECT id FROM "{_NAME}";
GRANT SELECT ON "{_NAME} of all" TO authenticated;
CREATE FUNCTION "{_NAME}"() RETURNS int LANGUAGE sql AS 'SELECT 1';
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with cleared_server() as server:
        server.create_database("app")
        with create_engine(server.url("app"), poolclass=NullPool).begin() as connection:
            connection.execute(CreateAuthFunctions())
            for statement in _SETUP.strip().split(";\n"):
                connection.exec_driver_sql(statement)
        yield server.url("app").render_as_string(hide_password=False)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "arguments",
    [
        ["why", f'"{_NAME}"', "1", "--as", "alice"],
        ["why", f'"{_NAME} of all"', "1", "--as", "alice"],
        ["import"],
        ["explain", f'SELECT * FROM "{_NAME}"', "--as", "alice", "--no-advice"],
    ],
    ids=["an answer", "an error", "import", "explain"],
)
def test_output_has_no_control_character(url: str, arguments: list[str]) -> None:
    command, *others = arguments

    done = _run(command, url, *others)

    assert done.output
    assert [one for one in done.output if not one.isprintable() and one != "\n"] == []


@pytest.mark.exhaustive
def test_a_comment_of_a_revision_has_none() -> None:
    from sqla_rls.alembic.autogenerate.render import _comment

    (line,) = _comment(f"WARNING: table {_NAME} is open")

    assert line.isprintable()
