"""Why an INSERT meets a row that is there, with ON CONFLICT and without: compared with the real command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from sqla_rls import Caller
from sqla_rls.analyze import OnConflict, explain_access
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.cli import main
from sqla_rls.exc import AnalysisError
from sqla_rls.testing.postgres import Server
from tests.support.scripts import database_of
from tests.support.suite import table

pytestmark = pytest.mark.every_postgres

SETUP = """
CREATE TABLE pages (
  id int PRIMARY KEY, slug text, owner text, body text, state text NOT NULL DEFAULT 'open',
  CONSTRAINT short CHECK (length(body) < 9));
CREATE UNIQUE INDEX slugs ON pages (lower(slug) COLLATE "C") WHERE state <> 'gone';
CREATE UNIQUE INDEX owned ON pages (owner, slug);
ALTER TABLE pages ENABLE ROW LEVEL SECURITY;
CREATE POLICY see ON pages FOR SELECT TO conflict_writer
  USING (owner IN (auth.user_id(), 'all') AND body <> 'unseen');
CREATE POLICY add ON pages FOR INSERT TO conflict_writer WITH CHECK (body <> 'no add');
CREATE POLICY change ON pages FOR UPDATE TO conflict_writer
  USING (owner = auth.user_id()) WITH CHECK (body <> 'no edit');
CREATE POLICY open ON pages AS RESTRICTIVE FOR UPDATE TO conflict_writer
  USING (state <> 'locked') WITH CHECK (true);
CREATE TABLE appended (id int PRIMARY KEY, body text);
ALTER TABLE appended ENABLE ROW LEVEL SECURITY;
CREATE POLICY see ON appended FOR SELECT TO conflict_writer USING (true);
CREATE POLICY add ON appended FOR INSERT TO conflict_writer WITH CHECK (true);
CREATE TABLE blind (id int PRIMARY KEY, body text);
CREATE TABLE unchanged (id int PRIMARY KEY, body text);
CREATE TABLE bookings (id int PRIMARY KEY, during int4range, EXCLUDE USING gist (during WITH &&));
CREATE TABLE once (id int, a int, UNIQUE NULLS NOT DISTINCT (a), UNIQUE (id) DEFERRABLE INITIALLY IMMEDIATE);
CREATE TABLE shelves (id int PRIMARY KEY, code text UNIQUE, body text);
CREATE TABLE books (id int PRIMARY KEY, shelf int REFERENCES shelves, code text REFERENCES shelves (code)
  ON DELETE SET NULL ON UPDATE CASCADE);
ALTER TABLE books ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON shelves, books TO conflict_writer;
INSERT INTO shelves VALUES (1, 'a', 'x'), (2, 'b', 'x'), (3, 'c', 'x');
INSERT INTO books VALUES (1, 1, NULL), (2, NULL, 'b');
GRANT SELECT, INSERT, UPDATE, DELETE ON pages, appended, bookings, once TO conflict_writer;
GRANT INSERT ON blind TO conflict_writer;
GRANT INSERT, SELECT ON unchanged TO conflict_writer;
GRANT USAGE ON SCHEMA auth TO conflict_writer;
INSERT INTO pages VALUES
  (1, 'one', 'alice', 'x', 'open'), (2, 'two', 'bob', 'x', 'open'), (3, 'three', 'all', 'x', 'open'),
  (4, 'four', 'alice', 'x', 'locked'), (5, 'five', 'alice', 'unseen', 'open');
INSERT INTO appended VALUES (1, 'x');
INSERT INTO blind VALUES (1, 'x');
INSERT INTO unchanged VALUES (1, 'x');
INSERT INTO bookings VALUES (1, '[1,5)');
INSERT INTO once VALUES (1, NULL);
"""
ALICE = Caller(role="conflict_writer", subject="alice")
NOTHING, UPDATE = OnConflict("nothing"), OnConflict("update")
MINE = {"slug": "new", "owner": "alice", "body": "y"}


@pytest.fixture(scope="module")
def owner(server: Server, template: str) -> Iterator[Engine]:
    with database_of(server, template, SETUP, role="conflict_writer") as engine:
        yield engine


def statement_of(
    table: str, row: Mapping[str, Any], clause: OnConflict | None, returning: bool
) -> tuple[str, dict[str, Any]]:
    """The INSERT itself, as a user writes it."""
    values = {f"v_{name}": value for name, value in row.items()}
    statement = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in values)})"
    if clause is not None:
        columns = clause.columns or (["id"] if clause.action == "update" else [])
        target = f" ({', '.join(columns)})" if columns else ""
        statement += f" ON CONFLICT{target} DO {clause.action.upper()}"
        if clause.action == "update":
            changed = clause.values
            if changed is None:
                names = [name for name in row if name not in columns] or list(row)
                statement += f" SET {', '.join(f'{name} = excluded.{name}' for name in names)}"
            else:
                statement += f" SET {', '.join(f'{name} = :c_{name}' for name in changed)}"
                values |= {f"c_{name}": value for name, value in changed.items()}
    return statement + (" RETURNING *" if returning else ""), values


def really(connection: Connection, statement: str, values: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Whether the command writes its row, and the SQLSTATE."""
    with connection.begin() as transaction:
        connection.execute(
            text("SELECT set_config('role', :role, true), set_config('request.jwt.claims', :claims, true)"),
            {"role": ALICE.role, "claims": json.dumps(dict(ALICE.claims))},
        )
        try:
            done = connection.execute(text(statement), values)
            return (len(done.all()) if done.returns_rows else done.rowcount) == 1, None
        except DBAPIError as error:
            return False, str(getattr(error.orig, "sqlstate", None))
        finally:
            transaction.rollback()


@table(
    ("table", "row", "clause", "returning", "reason", "sqlstate"),
    [
        # without the clause
        ("pages", {"id": 9, **MINE}, None, True, "allowed", None),
        ("pages", {"id": 1, **MINE}, None, True, "unique", "23505"),
        ("pages", {"id": 2, **MINE}, None, True, "unique", "23505"),
        ("pages", {"id": 9, **MINE, "slug": "TWO"}, None, True, "unique", "23505"),
        ("pages", {"id": 9, **MINE, "slug": "TWO", "state": "gone"}, None, True, "allowed", None),
        ("pages", {"id": 9, **MINE, "slug": None}, None, True, "allowed", None),
        ("pages", {"id": 9, **MINE, "body": "much too long"}, None, True, "constraint", "23514"),
        ("pages", {"id": 9, **MINE, "state": None}, None, True, "constraint", "23502"),
        ("pages", {"id": 1, **MINE, "body": "no add"}, None, False, "check_false", "42501"),
        ("bookings", {"id": 2, "during": "[4,6)"}, None, True, "unique", "23P01"),
        ("bookings", {"id": 2, "during": "[5,6)"}, None, True, "row_security_off", None),
        ("once", {"id": 2, "a": None}, None, True, "unique", "23505"),
        ("once", {"id": 2, "a": 1}, None, True, "row_security_off", None),
        # DO NOTHING
        ("pages", {"id": 9, **MINE}, NOTHING, False, "allowed", None),
        ("pages", {"id": 1, **MINE}, NOTHING, False, "unique", None),
        ("pages", {"id": 2, **MINE}, NOTHING, False, "unique", None),
        ("pages", {"id": 9, **MINE, "slug": "TWO"}, NOTHING, False, "unique", None),
        ("pages", {"id": 9, **MINE, "slug": "TWO"}, OnConflict("nothing", ["id"]), False, "unique", "23505"),
        ("pages", {"id": 2, **MINE}, OnConflict("nothing", ["slug", "owner"]), False, "unique", "23505"),
        ("pages", {"id": 2, **MINE}, OnConflict("nothing", ["id"]), False, "unique", None),
        # Without a target it reads nothing; with one, the SELECT policies see the new row.
        ("pages", {"id": 9, **MINE, "owner": "bob"}, NOTHING, False, "allowed", None),
        ("pages", {"id": 9, **MINE, "owner": "bob"}, NOTHING, True, "new_row_hidden", "42501"),
        (
            "pages",
            {"id": 9, **MINE, "owner": "bob"},
            OnConflict("nothing", ["id"]),
            False,
            "new_row_hidden",
            "42501",
        ),
        ("pages", {"id": 1, **MINE, "body": "no add"}, NOTHING, False, "check_false", "42501"),
        ("bookings", {"id": 2, "during": "[4,6)"}, NOTHING, False, "unique", None),
        ("blind", {"id": 1, "body": "y"}, NOTHING, False, "unique", None),
        ("blind", {"id": 2, "body": "y"}, NOTHING, False, "row_security_off", None),
        (
            "blind",
            {"id": 2, "body": "y"},
            OnConflict("nothing", ["id"]),
            False,
            "missing_privilege",
            "42501",
        ),
        # DO UPDATE
        ("pages", {"id": 9, **MINE}, UPDATE, False, "allowed", None),
        ("pages", {"id": 1, **MINE}, UPDATE, False, "allowed", None),
        ("pages", {"id": 1, **MINE}, UPDATE, True, "allowed", None),
        ("pages", {"id": 2, **MINE}, UPDATE, False, "conflict_denied", "42501"),
        ("pages", {"id": 3, **MINE}, UPDATE, False, "conflict_denied", "42501"),
        ("pages", {"id": 4, **MINE}, UPDATE, False, "conflict_denied", "42501"),
        ("pages", {"id": 5, **MINE}, UPDATE, False, "conflict_denied", "42501"),
        ("pages", {"id": 1, **MINE, "owner": "bob"}, UPDATE, False, "new_row_hidden", "42501"),
        ("pages", {"id": 1, **MINE, "body": "no add"}, UPDATE, False, "check_false", "42501"),
        ("pages", {"id": 1, **MINE, "body": "no edit"}, UPDATE, False, "check_false", "42501"),
        ("pages", {"id": 9, **MINE, "body": "no edit"}, UPDATE, False, "allowed", None),
        (
            "pages",
            {"id": 1, **MINE},
            OnConflict("update", ["id"], {"body": "unseen"}),
            False,
            "new_row_hidden",
            "42501",
        ),
        (
            "pages",
            {"id": 1, **MINE},
            OnConflict("update", ["id"], {"owner": "bob"}),
            False,
            "new_row_hidden",
            "42501",
        ),
        ("pages", {"id": 1, **MINE}, OnConflict("update", ["id"], {"owner": "all"}), False, "allowed", None),
        (
            "pages",
            {"id": 1, **MINE},
            OnConflict("update", ["id"], {"body": "much too long"}),
            False,
            "constraint",
            "23514",
        ),
        ("pages", {"id": 1, **MINE}, OnConflict("update", ["id"], {"id": 2}), False, "unique", "23505"),
        ("pages", {"id": 1, **MINE, "slug": "two"}, UPDATE, False, "unique", "23505"),
        ("pages", {"id": 9, **MINE, "slug": "two"}, UPDATE, False, "unique", "23505"),
        (
            "pages",
            {"id": 9, **MINE, "slug": "one"},
            OnConflict("update", ["owner", "slug"]),
            False,
            "allowed",
            None,
        ),
        ("appended", {"id": 1, "body": "y"}, UPDATE, False, "conflict_denied", "42501"),
        ("appended", {"id": 2, "body": "y"}, UPDATE, False, "allowed", None),
        ("unchanged", {"id": 2, "body": "y"}, UPDATE, False, "missing_privilege", "42501"),
        ("once", {"id": 2, "a": None}, OnConflict("update", ["a"]), True, "row_security_off", None),
    ],
    kind=lambda row: row[4],
)
def test_the_answer_is_that_of_the_real_command(
    connection: Connection,
    table: str,
    row: dict[str, Any],
    clause: OnConflict | None,
    returning: bool,
    reason: str,
    sqlstate: str | None,
) -> None:
    explained = explain_access(
        connection, ALICE, table, "INSERT", row=row, returning=returning, on_conflict=clause
    )
    connection.rollback()
    found = really(connection, *statement_of(table, row, clause, returning))
    assert (explained.reason, explained.allowed, sqlstate) == (reason, *found), explained


@table(
    ("row", "reason", "sqlstate"),
    [
        ({"id": 2}, "unique", "23505"),
        ({"id": 1}, "allowed", None),
        ({"slug": "one"}, "allowed", None),
        ({"slug": "FOUR"}, "unique", "23505"),
        ({"body": "much too long"}, "constraint", "23514"),
    ],
)
def test_an_update_meets_a_row_that_is_there(
    connection: Connection, row: dict[str, Any], reason: str, sqlstate: str | None
) -> None:
    explained = explain_access(connection, ALICE, "pages", "UPDATE", key=1, row=row)
    connection.rollback()
    changes = ", ".join(f"{name} = :{name}" for name in row)
    found = really(connection, f"UPDATE pages SET {changes} WHERE id = 1", row)
    assert (explained.reason, explained.allowed, sqlstate) == (reason, *found), explained


@table(
    ("statement", "key", "row", "reason", "sqlstate"),
    [
        ("DELETE FROM shelves WHERE id = 1", 1, {}, "foreign_key", "23503"),
        ("DELETE FROM shelves WHERE id = 2", 2, {}, "row_security_off", None),
        ("DELETE FROM shelves WHERE id = 3", 3, {}, "row_security_off", None),
        ("UPDATE shelves SET id = 9 WHERE id = 1", 1, {"id": 9}, "foreign_key", "23503"),
        (
            "UPDATE shelves SET id = 1, body = 'y' WHERE id = 1",
            1,
            {"id": 1, "body": "y"},
            "row_security_off",
            None,
        ),
        ("UPDATE shelves SET id = 9 WHERE id = 2", 2, {"id": 9}, "row_security_off", None),
        ("UPDATE shelves SET code = 'z' WHERE id = 2", 2, {"code": "z"}, "row_security_off", None),
    ],
)
def test_a_row_that_others_refer_to_stays(
    connection: Connection, statement: str, key: int, row: dict[str, Any], reason: str, sqlstate: str | None
) -> None:
    """The caller sees no row of the table that refers to it."""
    command: Command = "UPDATE" if row else "DELETE"
    explained = explain_access(connection, ALICE, "shelves", command, key=key, row=row)
    connection.rollback()
    assert (explained.reason, explained.allowed, sqlstate) == (reason, *really(connection, statement, {})), (
        explained
    )


def test_the_detail_tells_whether_the_caller_sees_the_row_that_is_there(connection: Connection) -> None:
    seen = explain_access(connection, ALICE, "pages", "INSERT", row={"id": 1, **MINE})
    assert seen.detail == "The table has a row with this key already, by unique index 'pages_pkey'."
    hidden = explain_access(connection, ALICE, "pages", "INSERT", row={"id": 2, **MINE})
    assert hidden.detail == f"{seen.detail} The SELECT policies hide that row from the caller."


def test_each_policy_tells_the_row_that_it_sees(connection: Connection) -> None:
    explained = explain_access(
        connection, ALICE, "pages", "INSERT", row={"id": 2, **MINE}, returning=False, on_conflict="update"
    )
    assert [(policy.name, policy.part, policy.row, policy.result) for policy in explained.policies] == [
        ("add", "check", "new", "true"),
        ("see", "using", "new", "true"),
        ("change", "using", "old", "false"),
        ("open", "using", "old", "true"),
        ("see", "using", "old", "false"),
        ("change", "check", "updated", "true"),
        ("open", "check", "updated", "true"),
        ("see", "using", "updated", "true"),
    ]
    assert "permissive policy 'change', CHECK on the updated row: true" in str(explained)


@table(
    ("options", "hint"),
    [
        ({"command": "UPDATE", "key": 1, "on_conflict": "update"}, "INSERT"),
        ({"on_conflict": OnConflict("update", ["body"])}, "no unique index"),
        ({"on_conflict": OnConflict("nothing", ["slug"])}, "no unique index"),
        ({"on_conflict": OnConflict("nothing", ["nope"])}, "no column 'nope'"),
        ({"on_conflict": OnConflict("update", ["id"], {"nope": 1})}, "no column 'nope'"),
        ({"on_conflict": "ignore"}, "'nothing' or 'update'"),
        ({"target": "once", "row": {"id": 1}, "on_conflict": "update"}, "no primary key"),
        (
            {"target": "once", "row": {"id": 1}, "on_conflict": OnConflict("update", ["id"])},
            "no unique index",
        ),
    ],
)
def test_a_clause_that_has_no_answer_says_why(
    connection: Connection, options: dict[str, Any], hint: str
) -> None:
    arguments = {"target": "pages", "command": "INSERT", "row": {"body": "x"}, **options}
    with pytest.raises(AnalysisError, match=hint):
        explain_access(connection, ALICE, **arguments)


@pytest.mark.exhaustive
def test_the_command_line_takes_the_clause(owner: Engine) -> None:
    url = owner.url.render_as_string(hide_password=False)
    asked = ["why", url, "pages", "--as", "alice", "--role", "conflict_writer", "--command", "INSERT"]
    row = ["--row", json.dumps({"id": 2, **MINE})]
    told = CliRunner().invoke(main, [*asked, *row, "--on-conflict", "update", "--format", "json"])
    assert json.loads(told.output)["reason"] == "conflict_denied"
    told = CliRunner().invoke(main, [*asked, *row, "--on-conflict", "nothing"])
    assert "ON CONFLICT DO NOTHING inserts no row." in told.output
    columns = ["--conflict-column", "owner", "--conflict-column", "slug"]
    told = CliRunner().invoke(main, [*asked, *row, "--on-conflict", "nothing", *columns])
    assert "unique index 'pages_pkey'" in told.output
    assert CliRunner().invoke(main, [*asked, *row, *columns]).exit_code == 2
