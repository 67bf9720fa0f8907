"""A sequence is known by the column that owns it; whoever inserts may use those that the table calls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    URL,
    Column,
    Identity,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from sqla_rls import Policy, grant_on
from tests.support.project import Project, execute, operations
from tests.support.suite import table

pytestmark = [pytest.mark.sqlalchemy, pytest.mark.exhaustive]


@pytest.fixture
def project(tmp_path: Path, database: URL) -> Project:
    project = Project(tmp_path / "migrations", database)
    # Roles outlive the databases of earlier tests.
    execute(project, "DO 'BEGIN CREATE ROLE rls_writer; EXCEPTION WHEN duplicate_object THEN END'")
    return project


def docs(*columns: Column[Any], name: str = "docs", metadata: MetaData | None = None) -> MetaData:
    metadata = metadata or MetaData()
    Table(
        name,
        metadata,
        *columns,
        Column("task", Text),
        Policy("write", "INSERT", "rls_writer", with_check=True),
        Policy("read", "SELECT", "rls_writer", using=True),
    )
    return metadata


def write(project: Project, *tables: str) -> None:
    """A row, as whom the policy lets."""
    execute(
        project, "SET LOCAL ROLE rls_writer", *(f"INSERT INTO {one} (task) VALUES ('x')" for one in tables)
    )


@table("made", ["migration", "create_all"])
def test_whoever_inserts_may_use_the_sequences_that_defaults_call(project: Project, made: str) -> None:
    execute(project, "CREATE SCHEMA other", 'CREATE SEQUENCE other."S 1"', "CREATE SEQUENCE s")
    metadata = MetaData()
    defaults: dict[str, Any] = {
        "by_sequence": Sequence("s").next_value(),
        "by_text": text("nextval('s')"),
        "by_expression": text("""concat('x', nextval('other."S 1"'))"""),
        "by_function": func.nextval("s"),
    }
    for name, default in defaults.items():
        docs(
            Column("n", Text if name == "by_expression" else Integer, server_default=default),
            name=name,
            metadata=metadata,
        )
    docs(Column("id", Integer, primary_key=True), name="serial", metadata=metadata)
    docs(Column("id", Integer, Identity(), primary_key=True), name="identity", metadata=metadata)
    before = project.state()
    if made == "migration":
        written = project.migrate(metadata)
        assert "_id_seq" not in written
        assert written.count("op.grant(['USAGE'], 's'") == 1
    else:
        metadata.create_all(project.engine)
    write(project, *metadata.tables)
    if made == "migration":
        after = project.state()
        project.downgrade()
        assert project.state() == before
        project.upgrade()
        assert project.state() == after
    else:
        assert "SEQUENCE" not in project.revision(metadata)


def test_a_sequence_that_the_migration_makes_is_found_by_its_column(project: Project) -> None:
    metadata = docs(Column("n", Integer, server_default=text("nextval('s')")))
    written = project.revision(metadata)
    assert "op.grant(['USAGE'], 'docs', ['rls_writer'], columns=['n'], object_type='SEQUENCE')" in written
    (script,) = project.folder.glob("versions/*.py")
    head, body = written.split("def upgrade():\n")
    script.write_text(f"{head}def upgrade():\n    op.execute('CREATE SEQUENCE s')\n{body}")
    project.upgrade()
    project.check(metadata)
    write(project, "docs")
    assert ("privilege", "s rls_writer USAGE") in project.state()


@pytest.mark.parametrize(
    ("kind", "type_", "autoincrement"),
    [("int", Integer, "auto"), ("int", Integer, False), ("uuid", Uuid, "auto")],
)
def test_a_table_without_a_sequence_is_asked_and_not_guessed_about(
    project: Project, kind: str, type_: Any, autoincrement: Any
) -> None:
    execute(project, f"CREATE TABLE docs (id {kind} PRIMARY KEY, task text)")
    key = Column("id", type_, primary_key=True, autoincrement=autoincrement)
    assert "SEQUENCE" not in project.migrate(docs(key))


def test_a_sequence_whose_name_is_another_tables_is_known_by_its_own(project: Project) -> None:
    """A renamed table keeps the name of its sequence, and a new one gets another."""
    execute(
        project,
        "CREATE TABLE docs (id serial PRIMARY KEY, task text)",
        "ALTER TABLE docs RENAME TO old_docs",
    )
    metadata = docs(Column("id", Integer, primary_key=True))
    docs(Column("id", Integer, primary_key=True), name="old_docs", metadata=metadata)
    grant_on(metadata, "SELECT", to="rls_writer", sequence=metadata.tables["old_docs"].c.id)
    project.migrate(metadata)
    write(project, "docs", "old_docs")
    held = {
        line for kind, line in project.state() if kind == "privilege" and "_seq" in line and "writer" in line
    }
    assert held == {
        "docs_id_seq rls_writer SELECT",
        "docs_id_seq rls_writer USAGE",
        "docs_id_seq1 rls_writer USAGE",
    }
    # By its name it is the same.
    by_name = docs(Column("id", Integer, primary_key=True))
    docs(Column("id", Integer, primary_key=True), name="old_docs", metadata=by_name)
    grant_on(by_name, "SELECT", to="rls_writer", sequence="docs_id_seq")
    project.check(by_name)
    # A name that was free when the models were written may be taken.
    execute(project, "DROP TABLE docs, old_docs", "CREATE SEQUENCE docs_id_seq")
    docs(Column("id", Integer, primary_key=True)).create_all(project.engine)
    write(project, "docs")


def test_what_others_hold_on_a_sequence_is_taken_back(project: Project) -> None:
    metadata = docs(Column("id", Integer, primary_key=True))
    project.migrate(metadata)
    before = project.state()
    execute(project, "GRANT ALL ON SEQUENCE docs_id_seq TO PUBLIC")
    assert operations(project.migrate(metadata)) == ["revoke"]
    assert project.state() == before


def test_a_shared_sequence_is_left_to_those_who_still_need_it(project: Project) -> None:
    execute(project, "CREATE SEQUENCE s", "GRANT USAGE ON SEQUENCE s TO PUBLIC")
    n: dict[str, Any] = {"server_default": Sequence("s").next_value()}
    both = docs(Column("n", Integer, **n))
    docs(Column("n", Integer, **n), name="more", metadata=both)
    project.migrate(docs(Column("n", Integer, **n)))
    one = project.state()
    project.migrate(both)
    write(project, "docs", "more")
    two = project.state()
    project.migrate(docs(Column("n", Integer, **n)))
    assert project.state() == one
    project.downgrade()
    assert project.state() == two
    project.upgrade()
    written = project.migrate(MetaData())
    assert "op.revoke(['USAGE'], 's', ['rls_writer'], object_type='SEQUENCE')" in written
    assert ("privilege", "s - USAGE") in project.state()


def test_a_column_that_is_added_may_call_one(project: Project) -> None:
    execute(project, "CREATE SEQUENCE s")
    project.migrate(docs())
    before = project.state()
    project.migrate(docs(Column("n", Integer, server_default=text("nextval('s')"))))
    write(project, "docs")
    project.downgrade()
    assert project.state() == before


def test_as_a_script(project: Project) -> None:
    written = project.revision(docs(Column('i"d%', Integer, primary_key=True), name="Do c's %"))
    found = re.search(r"revision = '(\w+)'", written)
    assert found is not None
    execute(project, "DROP TABLE alembic_version")
    with project.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        raw: Any = connection.connection.driver_connection
        raw.execute(project.script("upgrade", f"base:{found[1]}"))
    write(project, '"Do c\'s %"')
