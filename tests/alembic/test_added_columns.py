"""A column that another table gains, or loses, leaves policies and views as they are declared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Column, Integer, MetaData, Table, Text, exists, func, select

from sqla_rls import Policy, grant, view
from sqla_rls.ddl.compile import expression_text
from tests.support.project import Project, operations

pytestmark = pytest.mark.sqlalchemy


@pytest.fixture
def project(tmp_path: Path, database: URL) -> Project:
    return Project(tmp_path / "migrations", database)


def models(
    using: Callable[[Table, Table], Any] | str,
    *columns: str,
    query: Callable[[Table, Table], Any] | str | None = None,
) -> MetaData:
    """Notes whose policy, and view, read members, a table with *columns*."""
    metadata = MetaData()
    members = Table("members", metadata, Column("note", Integer), *[Column(name, Text) for name in columns])
    notes = Table("notes", metadata, Column("id", Integer, primary_key=True), Column("task", Text))
    declared = using if isinstance(using, str) else using(members, notes)
    Policy("it", "SELECT", "public", using=declared)._set_parent_with_dispatch(notes)
    if query is not None:
        view(
            "seen",
            metadata,
            query if isinstance(query, str) else query(members, notes),
            grant("SELECT", to="public"),
        )
    return metadata


EXISTING = {
    "exists()": lambda members, notes: exists().where(members.c.note == notes.c.id),
    "select().exists()": lambda members, notes: select(members).where(members.c.note == notes.c.id).exists(),
    "not exists()": lambda members, notes: ~exists(members).where(members.c.note == notes.c.id),
    "nested": lambda members, notes: exists().where(
        members.c.note == notes.c.id, exists().where(members.alias("m").c.note == members.c.note)
    ),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("using", EXISTING.values(), ids=EXISTING.keys())
def test_exists_depends_on_no_column_that_it_does_not_name(project: Project, using: Any) -> None:
    def changed(*columns: str) -> MetaData:
        return models(
            using, *columns, query=lambda members, notes: select(notes.c.id).where(using(members, notes))
        )

    project.migrate(changed("one"))
    assert operations(project.migrate(changed("one", "another"))) == ["add_column"]
    assert operations(project.migrate(changed("another"))) == ["drop_column"]


def test_exists_keeps_what_decides_whether_there_is_a_row() -> None:
    """An aggregate always has one, and a set may have none."""
    members = Table("members", MetaData(), Column("note", Integer))
    notes = Table("notes", MetaData(), Column("id", Integer))
    for selected in (func.count(members.c.note), func.generate_series(1, members.c.note)):
        condition = select(selected).where(members.c.note == notes.c.id).exists()
        assert f"SELECT {selected.name}(" in expression_text(condition, notes)


STAR = "EXISTS (SELECT * FROM members AS m WHERE m.note = id)"


@pytest.mark.exhaustive
def test_a_star_in_text_is_read_again_in_the_migration_that_adds_the_column(project: Project) -> None:
    query = "SELECT *, 1 AS number FROM members"
    project.migrate(models(STAR, "one", query=query))
    before = project.state()
    written = project.migrate(models(STAR, "one", "another", query=query))
    assert operations(written) == ["drop_rls_view", "add_column", "create_rls_view", "alter_policy", "grant"]
    after = project.state()
    project.downgrade()
    assert project.state() == before
    project.upgrade()
    assert project.state() == after

    project.migrate(models(STAR, "another", query=query))
    project.downgrade()
    assert project.state() == after


@pytest.mark.exhaustive
def test_other_stars_and_other_columns_are_left_as_they_are(project: Project) -> None:
    declared = models(
        "(SELECT count(*) FROM members WHERE note * 2 > 0) > 0",
        "one",
        query=f"SELECT id FROM notes WHERE {STAR}",
    )
    project.migrate(declared)
    table = declared.tables["notes"]
    table.append_column(Column("text", Text))
    assert operations(project.migrate(declared)) == ["add_column"]
