"""Comments that users write on policies, views and functions outlive what migrations do to these."""

from __future__ import annotations

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Integer, MetaData, String, Table, Text
from sqlalchemy.types import TypeEngine

from sqla_rls import Policy, Role, grant, sql_function, view
from tests.support.project import Project, operations

READER = Role("reporting")
ODD = """@graphql({"name": "it's"}) 100% :done \\ $sql$
second line"""


def models(
    task: TypeEngine[str], *, argument: str = "int", columns: str = "id, task", everything: bool = True
) -> MetaData:
    metadata = MetaData()
    Table(
        "todos",
        metadata,
        Column("id", Integer),
        Column("task", task),
        Policy("last", "ALL", READER, using=True),
        *([Policy("named", "SELECT", READER, using="task <> ''")] if everything else []),
    )
    if everything:
        view("my_todos", metadata, f"SELECT {columns} FROM todos", grant("SELECT", to=READER))
        sql_function("f", metadata, arguments=f"who {argument}", returns="int", body="SELECT 1", to=READER)
    return metadata


def comment(project: Project) -> list[tuple[str, str]]:
    """Write comments, and return them."""
    with project.engine.begin() as connection:
        for on, text in {
            "POLICY named ON todos": ODD,
            "VIEW my_todos": "@omit",
            "COLUMN my_todos.id": "the key",
            "COLUMN my_todos.task": "as it was said",
            "FUNCTION f": "answers",
        }.items():
            connection.connection.cursor().execute(f"COMMENT ON {on} IS $written${text}$written$")
    return comments(project)


def comments(project: Project) -> list[tuple[str, str]]:
    return [line for line in project.state() if line[0] == "comment" and "auth" not in line[1]]


def test_comments_survive_what_is_dropped_and_made_again(project: Project) -> None:
    project.migrate(models(String(9)))
    written = comment(project)
    assert len(written) == 5
    before = project.state()
    made_again = operations(project.migrate(models(Text(), argument="text")))
    assert {"drop_policy", "drop_rls_view", "drop_rls_function"} <= {*made_again}
    assert [line.replace("text", "integer") for _, line in comments(project)] == [line for _, line in written]
    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_comments_survive_what_is_altered_or_replaced(project: Project) -> None:
    project.migrate(models(Text()))
    written = comment(project)
    made = operations(project.migrate(models(Text(), columns="id, task || '!' AS task")))
    assert made == ["replace_rls_view"]
    project.downgrade()
    assert comments(project) == written


@pytest.mark.exhaustive
def test_a_comment_on_a_column_goes_with_the_column(project: Project) -> None:
    project.migrate(models(Text()))
    comment(project)
    before = project.state()
    project.migrate(models(Text(), columns="id"))
    assert [line for _, line in comments(project) if "column" in line] == [
        "column id of view my_todos is the key"
    ]
    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_a_downgrade_brings_comments_back(project: Project) -> None:
    project.migrate(models(Text()))
    comment(project)
    before = project.state()
    project.migrate(models(Text(), everything=False))
    assert comments(project) == []
    project.downgrade()
    assert project.state() == before
    project.upgrade()
    project.migrate(MetaData())
    project.downgrade("-2")
    assert project.state() == before


@pytest.mark.exhaustive
def test_a_script_brings_comments_back(project: Project) -> None:
    project.migrate(models(String(9)))
    comment(project)
    project.revision(models(Text(), argument="text"))
    revisions = ScriptDirectory.from_config(project.config(MetaData())).walk_revisions()
    new, old = [script.revision for script in revisions][:2]
    script = project.script("upgrade", f"{old}:{new}")
    project.upgrade()
    expected = project.state()
    project.downgrade()
    with project.engine.begin() as connection:
        connection.connection.cursor().execute(script)
    assert project.state() == expected
