"""Why a caller may, or may not, read or write a row: compared with the real command."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from sqlalchemy import URL, Connection, Engine, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from sqla_rls import Caller
from sqla_rls.analyze import explain_access
from sqla_rls.analyze.why.explanation import Command, Reason
from sqla_rls.cli import main
from sqla_rls.exc import AnalysisError, BindingError
from sqla_rls.testing.postgres import Server
from tests.support.scripts import database_of
from tests.support.sessions import Todo
from tests.support.signing import Signed
from tests.support.suite import table

SETUP = """
CREATE TABLE orgs (id int PRIMARY KEY, name text);
CREATE TABLE members (org_id int REFERENCES orgs, user_id text, PRIMARY KEY (org_id, user_id));
CREATE TABLE "Docs: 100%" (
  id int PRIMARY KEY, org_id int REFERENCES orgs, body text DEFAULT 'it''s :new',
  deleted bool NOT NULL DEFAULT false, secret text, gone int, made_at timestamptz DEFAULT '2026-01-01',
  words text GENERATED ALWAYS AS (upper(body)) STORED);
ALTER TABLE "Docs: 100%" DROP COLUMN gone;
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Docs: 100%" ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON members TO why_reader USING (user_id = (SELECT auth.user_id()));
CREATE POLICY mine ON "Docs: 100%" FOR SELECT TO why_reader
  USING (org_id IN (SELECT org_id FROM members) AND NOT deleted);
CREATE POLICY mine_too ON "Docs: 100%" FOR UPDATE TO why_reader
  USING (org_id IN (SELECT org_id FROM members)) WITH CHECK (body <> ':forbidden');
CREATE POLICY add ON "Docs: 100%" FOR INSERT TO why_reader WITH CHECK (words <> 'NO');
CREATE POLICY no_secrets ON "Docs: 100%" AS RESTRICTIVE TO why_reader USING (secret IS NULL);
CREATE TABLE plain (id int PRIMARY KEY, body text);
CREATE TABLE closed (id int PRIMARY KEY);
ALTER TABLE closed ENABLE ROW LEVEL SECURITY;
CREATE TABLE loops (id int PRIMARY KEY);
ALTER TABLE loops ENABLE ROW LEVEL SECURITY;
CREATE POLICY loop ON loops USING (id IN (SELECT id FROM loops));
CREATE TABLE counted (id serial PRIMARY KEY, body text);
CREATE TABLE halves (id int PRIMARY KEY, body text);
ALTER TABLE halves ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON halves FOR SELECT USING (true);
CREATE POLICY half ON halves FOR UPDATE WITH CHECK (true);
CREATE POLICY narrow ON halves AS RESTRICTIVE FOR UPDATE WITH CHECK (body <> 'no');
GRANT SELECT, UPDATE ON halves TO why_reader;
INSERT INTO halves VALUES (1, 'x');
CREATE VIEW seen AS SELECT * FROM plain;
GRANT SELECT ON orgs, members, closed, loops TO why_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON "Docs: 100%" TO why_reader;
GRANT SELECT (id), UPDATE (body) ON plain TO why_reader;
GRANT INSERT, SELECT ON counted TO why_reader;
GRANT USAGE ON SCHEMA auth TO why_reader;
INSERT INTO orgs VALUES (1, 'one'), (2, 'two');
INSERT INTO members VALUES (1, 'alice'), (2, 'bob');
INSERT INTO "Docs: 100%" (id, org_id, deleted, secret)
  VALUES (1, 1, false, NULL), (2, 2, false, NULL), (3, 1, true, NULL), (4, 1, false, 'x');
INSERT INTO plain VALUES (1, 'x');
INSERT INTO closed VALUES (1);
INSERT INTO loops VALUES (1);
"""
#: Its policy asks schema auth by a function that has the rights of its owner.
OUTSIDER = """
CREATE ROLE outsider;
CREATE FUNCTION whoami() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT auth.user_id()';
CREATE TABLE asked (id int PRIMARY KEY, owner text);
ALTER TABLE asked ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON asked USING (owner = whoami());
INSERT INTO asked VALUES (1, 'alice');
GRANT SELECT ON asked TO outsider;
"""
DOCS = 'public."Docs: 100%"'
ALICE = Caller(role="why_reader", subject="alice")


@pytest.fixture(scope="module")
def owner(server: Server, template: str) -> Iterator[Engine]:
    """The superuser of a database with orgs, their members and documents."""
    with database_of(server, template, SETUP, role="why_reader") as engine:
        yield engine


def really(
    connection: Connection, caller: Caller, table: str, command: Command, key: Any, row: dict[str, Any]
) -> bool:
    """Whether the command itself works, and finds the row."""
    names = ", ".join(f'"{name}"' for name in row)
    values = ", ".join(f":{name}" for name in row)
    changes = ", ".join(f'"{name}" = :{name}' for name in row) or "id = id"
    quoted = table.replace(":", r"\:")
    statement = {
        "SELECT": f"SELECT * FROM {quoted} WHERE id = :key",
        "DELETE": f"DELETE FROM {quoted} WHERE id = :key",
        "UPDATE": f"UPDATE {quoted} SET {changes} WHERE id = :key",
        "INSERT": f"INSERT INTO {quoted} ({names}) VALUES ({values}) RETURNING *",
    }[command]
    transaction = connection.begin()
    try:
        connection.execute(
            text("SELECT set_config('role', :role, true), set_config('request.jwt.claims', :claims, true)"),
            {"role": caller.role, "claims": json.dumps(dict(caller.claims))},
        )
        with suppress(DBAPIError):
            done = connection.execute(text(statement), {"key": key, **row})
            return (len(done.all()) if done.returns_rows else done.rowcount) == 1
        return False
    finally:
        transaction.rollback()


@table(
    ("table", "command", "key", "row", "reason"),
    [
        (DOCS, "SELECT", 1, {}, "allowed"),
        (DOCS, "SELECT", 2, {}, "permissive_false"),
        (DOCS, "SELECT", 3, {}, "permissive_false"),
        (DOCS, "SELECT", 4, {}, "restrictive_false"),
        (DOCS, "SELECT", 9, {}, "no_such_row"),
        (DOCS, "UPDATE", 1, {"body": "new"}, "allowed"),
        (DOCS, "UPDATE", 2, {"body": "new"}, "permissive_false"),
        (DOCS, "UPDATE", 1, {"body": ":forbidden"}, "check_false"),
        (DOCS, "UPDATE", 1, {"deleted": True}, "new_row_hidden"),
        (DOCS, "UPDATE", 1, {"secret": "x"}, "restrictive_false"),
        (DOCS, "UPDATE", 1, {"org_id": 7}, "new_row_hidden"),
        (DOCS, "DELETE", 1, {}, "no_policy"),
        (DOCS, "INSERT", None, {"id": 20, "org_id": 1}, "allowed"),
        (DOCS, "INSERT", None, {"id": 20, "org_id": 1, "body": "no"}, "check_false"),
        (DOCS, "INSERT", None, {"id": 20, "org_id": 2}, "new_row_hidden"),
        (DOCS, "INSERT", None, {"id": 20}, "new_row_hidden"),
        ("public.plain", "SELECT", 1, {}, "column_privilege"),
        ("public.plain", "UPDATE", 1, {"body": "y"}, "row_security_off"),
        ("public.plain", "UPDATE", 1, {"id": 2}, "column_privilege"),
        ("public.plain", "DELETE", 1, {}, "missing_privilege"),
        ("public.plain", "INSERT", None, {"id": 3}, "missing_privilege"),
        ("public.orgs", "SELECT", 1, {}, "row_security_off"),
        ("public.closed", "SELECT", 1, {}, "no_policy"),
        ("public.loops", "SELECT", 1, {}, "policy_error"),
        ("public.halves", "SELECT", 1, {}, "allowed"),
        ("public.halves", "UPDATE", 1, {"body": "y"}, "permissive_false"),
        ("public.counted", "INSERT", None, {"body": "x"}, "missing_privilege"),
        ("public.counted", "INSERT", None, {"id": 5, "body": "x"}, "row_security_off"),
    ],
    kind=lambda row: row[4],
)
def test_the_answer_is_that_of_the_real_command(
    connection: Connection, table: str, command: Command, key: Any, row: dict[str, Any], reason: str
) -> None:
    explained = explain_access(connection, ALICE, table, command, key=key, row=row)
    connection.rollback()
    assert (explained.reason, explained.allowed) == (
        reason,
        really(connection, ALICE, table, command, key, row),
    ), explained


def test_the_answer_has_the_values_that_a_condition_compares(connection: Connection) -> None:
    explained = explain_access(connection, ALICE, DOCS, key=3)
    (policy,) = [policy for policy in explained.policies if policy.name == "mine"]
    assert [(failed.expression, failed.result) for failed in policy.failed] == [("NOT deleted", "false")]
    explained = explain_access(connection, ALICE, "members", key={"org_id": 2, "user_id": "bob"})
    (policy,) = explained.policies
    (failed,) = policy.failed
    assert sorted(failed.values.values(), key=str) == ["alice", "bob"]
    assert "user_id is 'bob'" in str(explained)


def test_without_the_parser_the_predicate_is_one_condition(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pglast", None)
    (policy, _) = explain_access(connection, ALICE, DOCS, key=3).policies
    (failed,) = policy.failed
    assert "members" in failed.expression
    assert "NOT deleted" in failed.expression


def test_an_error_of_a_policy_is_told(connection: Connection) -> None:
    (policy,) = explain_access(connection, ALICE, "loops", key=1).policies
    assert policy.result == "error"
    assert "recursion" in str(policy.failed[0].values["error"])


def test_the_answer_is_json(connection: Connection) -> None:
    explained = explain_access(connection, ALICE, DOCS, key=2)
    told = json.loads(json.dumps(explained.as_dict()))
    assert (told["allowed"], told["reason"]) == (False, "permissive_false")
    assert {policy["name"]: policy["result"] for policy in told["policies"]} == {
        "mine": "false",
        "no_secrets": "true",
    }


def test_nothing_is_written_and_the_transaction_stays_the_owners(owner: Engine) -> None:
    with owner.begin() as connection:
        connection.exec_driver_sql("INSERT INTO plain VALUES (77, 'mine')")
        explain_access(connection, ALICE, "counted", "INSERT", row={"id": 5})
        explain_access(connection, ALICE, DOCS, "UPDATE", key=1, row={"body": "y"})
        assert connection.scalar(text("SELECT current_user = session_user"))
        assert not connection.scalar(text("SELECT current_setting('request.jwt.claims', true)"))
        connection.exec_driver_sql("DELETE FROM plain WHERE id = 77")
    with owner.connect() as connection:
        assert connection.scalar(text('SELECT body FROM "Docs: 100%" WHERE id = 1')) == "it's :new"


@pytest.mark.parametrize(
    ("target", "options", "hint"),
    [
        ("nowhere", {"key": 1}, "no such table"),
        ("seen", {"key": 1}, "tables that it reads"),
        (DOCS, {}, "mapping"),
        (DOCS, {"key": (1, 2)}, "mapping"),
        (DOCS, {"key": {"org_id": 1}}, "several rows"),
        (DOCS, {"key": {"nope": 1}}, "no column 'nope'"),
        (DOCS, {"key": 1, "command": "UPDATE", "row": {"nope": 1}}, "no column 'nope'"),
        (DOCS, {"key": 1, "command": "TRUNCATE"}, "SELECT"),
        (7, {"key": 1}, "mapped class"),
    ],
)
def test_a_question_that_has_no_answer_says_why(
    connection: Connection, target: Any, options: dict[str, Any], hint: str
) -> None:
    with pytest.raises(AnalysisError, match=hint):
        explain_access(connection, ALICE, target, **options)


def test_only_a_role_that_sees_all_rows_is_answered(url: URL, admin: Engine, todos: None) -> None:
    with admin.begin() as connection:
        connection.exec_driver_sql("GRANT SELECT ON todos TO app")
    with (
        create_engine(url, poolclass=NullPool).connect() as connection,
        pytest.raises(AnalysisError, match="owner"),
    ):
        explain_access(connection, Caller(role="authenticated", subject="alice"), "todos", key=1)


def test_an_instance_and_a_mapped_class_are_asked_about(admin: Engine, todos: None) -> None:
    with Session(admin) as session:
        theirs = session.scalars(select(Todo).where(Todo.user_id == "bob")).one()
        alice = Caller(role="authenticated", subject="alice")
        connection = session.connection()
        assert explain_access(connection, alice, theirs).reason == "permissive_false"
        assert explain_access(connection, alice, Todo, "DELETE", key=theirs.id).reason == "permissive_false"
        assert explain_access(connection, alice, Todo(task="new"), "INSERT").allowed
        forged = Todo(task="new", user_id="bob")
        assert explain_access(connection, alice, forged, "INSERT").reason == "check_false"
        assert explain_access(connection, Caller.anonymous(), theirs).reason == "missing_privilege"


def test_a_database_that_verifies_callers_wants_the_key(signed: Signed) -> None:
    alice = Caller(role="authenticated", subject="alice")
    with signed.admin.connect() as connection:
        key = connection.scalar(text("SELECT id FROM todos WHERE user_id = 'alice'"))
        with pytest.raises(AnalysisError, match="SQLA_RLS_SIGNING_KEY"):
            explain_access(connection, alice, "todos", key=key)
        assert explain_access(connection, alice, "todos", key=key, signing_key=signed.key).allowed


@pytest.mark.exhaustive
def test_a_role_that_may_not_use_schema_auth_is_no_way_around_the_key(signed: Signed) -> None:
    outsider = Caller(role="outsider", subject="alice")
    with signed.admin.connect() as connection:
        connection.execute(text(OUTSIDER))
        with pytest.raises(AnalysisError, match="SQLA_RLS_SIGNING_KEY"):
            explain_access(connection, outsider, "asked", key=1)
        assert explain_access(connection, outsider, "asked", key=1, signing_key=signed.key).allowed
        bob = Caller(role="outsider", subject="bob")
        explained = explain_access(connection, bob, "asked", key=1, signing_key=signed.key)
        assert explained.reason == "permissive_false"
        wrong = "A" * 43
        with pytest.raises(AnalysisError, match=r"refuses the claims.*latest signing key"):
            explain_access(connection, bob, "asked", key=1, signing_key=wrong)
        # Without claims there is nothing to believe.
        nobody = Caller(role="outsider")
        assert explain_access(connection, nobody, "asked", key=1).reason == "permissive_false"
        connection.rollback()


@pytest.mark.exhaustive
def test_an_owner_who_can_not_ask_either_gets_no_answer(admin: Engine) -> None:
    outsider = Caller(role="outsider", subject="alice")
    with admin.connect() as connection:
        connection.execute(text(OUTSIDER))
        connection.exec_driver_sql(
            "CREATE ROLE asking_owner; GRANT outsider TO asking_owner;"
            "ALTER TABLE asked OWNER TO asking_owner; GRANT SELECT ON asked TO outsider;"
            "SET SESSION AUTHORIZATION asking_owner"
        )
        with pytest.raises(AnalysisError, match=r"neither.*Grant USAGE on schema auth"):
            explain_access(connection, outsider, "asked", key=1)
        connection.exec_driver_sql("RESET SESSION AUTHORIZATION; GRANT USAGE ON SCHEMA auth TO asking_owner")
        connection.exec_driver_sql("SET SESSION AUTHORIZATION asking_owner")
        assert explain_access(connection, outsider, "asked", key=1).allowed
        connection.rollback()


def test_an_owner_who_may_not_become_the_caller_gets_the_grant(owner: Engine) -> None:
    """The role that creates another one may not SET ROLE to it, from PostgreSQL 16 on."""
    name = 'why "owner"'
    with owner.connect() as connection:
        connection.exec_driver_sql('CREATE ROLE "why ""owner"""; CREATE TABLE owned (id int PRIMARY KEY)')
        connection.exec_driver_sql('ALTER TABLE owned OWNER TO "why ""owner"""')
        connection.exec_driver_sql('SET SESSION AUTHORIZATION "why ""owner"""')
        with pytest.raises(BindingError, match="may not SET ROLE to it") as refused:
            explain_access(connection, Caller(role="why_reader", subject="alice"), "owned", "SELECT", key=1)
        assert name in str(refused.value)
        grant = str(refused.value).partition("Run ")[2].partition(", or connect")[0]
        connection.exec_driver_sql(
            f"RESET SESSION AUTHORIZATION; {grant}; SET SESSION AUTHORIZATION " + '"why ""owner"""'
        )
        connection.exec_driver_sql("INSERT INTO owned VALUES (1)")
        answer = explain_access(
            connection, Caller(role="why_reader", subject="alice"), "owned", "SELECT", key=1
        )
        assert answer.reason == "missing_privilege"
        connection.rollback()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_asyncio_asks_by_run_sync(owner: Engine, runner: asyncio.Runner, driver: str) -> None:
    async def ask() -> str:
        engine = create_async_engine(owner.url.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)
        async with engine.connect() as connection:
            explained = await connection.run_sync(explain_access, ALICE, DOCS, key=2)
        return explained.reason

    assert runner.run(ask()) == "permissive_false"


def test_the_command_line_explains(owner: Engine) -> None:
    url = owner.url.render_as_string(hide_password=False)
    asked = ["why", url, DOCS, "2", "--as", "alice", "--role", "why_reader"]
    told = CliRunner().invoke(main, asked)
    assert told.exit_code == 0
    assert "denied" in told.output
    assert "permissive policy 'mine', USING on the row: false" in told.output
    told = CliRunner().invoke(
        main, [*asked, "--format", "json", "--command", "update", "--row", '{"body": "x"}']
    )
    assert json.loads(told.output)["reason"] == "permissive_false"
    told = CliRunner().invoke(
        main, ["why", url, "members", '["2", "bob"]', "--as", "bob", "--role", "why_reader"]
    )
    assert "allowed" in told.output
    wrong = CliRunner().invoke(main, ["why", url, "nowhere", "1"])
    assert (wrong.exit_code, "no such table" in wrong.output) == (2, True)
    assert CliRunner().invoke(main, ["why", url, "members", "1", "--claims", "[]"]).exit_code == 2


def test_the_guide_lists_each_reason() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "why.md").read_text(encoding="utf-8")
    reasons = [line.split("`")[1] for line in guide.splitlines() if line.startswith("| `")]
    assert reasons == ["reason", *get_args(Reason)]
