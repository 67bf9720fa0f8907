"""Postgres neither drops nor retypes what a policy depends on: it is taken away before and put back after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Column, Integer, MetaData, String, Table, Text, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from sqla_rls import Policy
from tests.support.project import Project, execute, operations

pytestmark = pytest.mark.sqlalchemy


@pytest.fixture
def project(tmp_path: Path, database: URL) -> Project:
    return Project(tmp_path / "migrations", database)


def models(
    owner: TypeEngine[Any],
    *columns: str,
    of_accounts: str = "owner = 'x'",
    of_notes: str = "EXISTS (SELECT FROM accounts AS a WHERE a.owner = notes.writer)",
    tables: tuple[str, ...] = (),
) -> MetaData:
    metadata = MetaData()
    Table(
        "accounts",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("owner", owner),
        *[Column(name, Text) for name in columns],
        Policy("by_owner", using=of_accounts),
        Policy("but_not_all", using=of_accounts, permissive=False),
        Policy("by_id", using="id > 0"),
    )
    Table(
        "notes",
        metadata,
        Column("writer", Text),
        Policy("of_account", "SELECT", using=of_notes),
        Policy("by_writer", "SELECT", using="writer = 'x'"),
    )
    Table("unmanaged", metadata, Column("owner", Text))
    for name in tables:
        Table(name, metadata, Column("id", Integer), Policy("its_own", using="id > 0"))
    return metadata


def oids(project: Project) -> dict[str, int]:
    query = text("SELECT concat_ws('.', polrelid::regclass, polname), oid FROM pg_policy")
    with project.engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


@pytest.mark.exhaustive
def test_a_retyped_column_takes_along_those_that_depend_on_it_and_no_others(project: Project) -> None:
    project.migrate(models(String(20)))
    execute(
        project,
        "CREATE SCHEMA elsewhere",
        "CREATE TABLE elsewhere.files (owner text)",
        "CREATE POLICY by_hand ON unmanaged USING (owner IN (SELECT a.owner FROM accounts AS a))",
        "CREATE POLICY by_hand ON elsewhere.files AS RESTRICTIVE FOR UPDATE TO CURRENT_USER"
        " USING (true) WITH CHECK (owner = ANY (ARRAY(SELECT a.owner::text FROM public.accounts AS a)))",
        "CREATE TABLE heir () INHERITS (accounts)",
        "CREATE POLICY of_heir ON heir USING (owner <> 'y')",
    )
    before, policies = project.state(), oids(project)
    # Alembic would drop a table that no model has.
    project.options["include_object"] = lambda item, name, *_: name != "heir"

    project.migrate(models(Text()))
    after = oids(project)
    assert after.keys() == policies.keys()
    assert {name for name, oid in after.items() if oid != policies[name]} == {
        "accounts.by_owner",
        "accounts.but_not_all",
        "accounts.by_id",  # which but_not_all narrows
        "notes.of_account",
        "unmanaged.by_hand",
        "elsewhere.files.by_hand",
        "heir.of_heir",
    }

    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_what_narrows_access_is_last_to_go_and_first_to_come_back(project: Project) -> None:
    project.migrate(models(String(20)))
    written = project.migrate(models(Text()))
    for direction in ("upgrade", "downgrade"):
        body = written.split(f"def {direction}():")[1].split("def ")[0]
        dropped, created = body.split("alter_column")
        assert dropped.index("'by_owner'") < dropped.index("'but_not_all'")
        assert created.index("'but_not_all'") < created.index("'by_owner'")


@pytest.mark.exhaustive
def test_a_dropped_column_of_another_table(project: Project) -> None:
    project.migrate(
        models(Text(), "old", of_notes="EXISTS (SELECT FROM accounts AS a WHERE a.old = notes.writer)")
    )
    before = project.state()
    written = project.migrate(models(Text()))
    assert operations(written) == ["drop_policy", "drop_column", "create_policy"]
    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_a_dropped_table_and_policies_that_name_each_other(project: Project) -> None:
    project.migrate(
        models(
            Text(),
            tables=("members", "teams"),
            of_accounts="id IN (SELECT id FROM members) AND (SELECT count(*) FROM teams) > 0",
            of_notes="EXISTS (SELECT FROM members, teams WHERE members.id = teams.id)",
        )
    )
    before = project.state()
    project.migrate(models(Text()))
    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_what_can_not_be_restored_is_said(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    project.migrate(models(Text(), "old"))
    execute(project, "CREATE POLICY by_hand ON unmanaged USING (owner IN (SELECT a.old FROM accounts AS a))")
    before = project.state()
    written = project.revision(models(Text()))
    assert "undeclared policy by_hand on unmanaged depends on an object that it drops" in caplog.text
    assert operations(written) == ["drop_column"]
    with pytest.raises(DBAPIError, match="other objects depend on it"):
        project.upgrade()
    assert project.state() == before
