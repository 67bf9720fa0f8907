"""Functions that column defaults call come before the tables, and those that name the tables after them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Engine,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    func,
    inspect,
    text,
)
from sqlalchemy.exc import DBAPIError

from sqla_rls import Policy, auth, authenticated, sql_function
from sqla_rls.testing.postgres import Server
from tests.support.project import Project, execute, operations, state, statements_of


def models(*, columns: bool = True) -> MetaData:
    """Functions that call one another, a table whose columns call them, and functions that name the table."""
    metadata = MetaData()
    if columns:
        add_function(metadata, "who", returns="text", body="SELECT coalesce(auth.user_id(), '100% :x')")
        add_function(metadata, "a_default", returns="text", body="SELECT public.who() || '!'")
        add_function(
            metadata, "is_short", arguments="one text", body="SELECT one < 'x'", volatility="IMMUTABLE"
        )
    add_function(metadata, "all_todos", returns="SETOF public.todos", body="SELECT * FROM public.todos")
    add_function(metadata, "are_there", body="SELECT EXISTS (SELECT FROM public.all_todos())")
    Table(
        "todos",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("by", Text, server_default=auth.user_id()),
        *[
            Column("owner", Text, server_default=func.a_default()),
            CheckConstraint("is_short(owner)", name="short"),
            Index("by_shortness", func.is_short(text("owner"))),
        ]
        * columns,
        Policy("it", "SELECT", authenticated, using=func.are_there()),
    )
    return metadata


def add_function(metadata: MetaData, name: str, *, body: str, **said: Any) -> None:
    sql_function(name, metadata, body=body, **{"returns": "boolean", "to": authenticated, **said})


def nothing() -> MetaData:
    """But a table with a policy: what is taken out of such models goes."""
    metadata = MetaData()
    Table("kept", metadata, Column("id", Integer), Policy("it", "SELECT", authenticated, using="(true)"))
    return metadata


ORDER = [
    "create_rls_function",  # who
    "create_rls_function",  # a_default
    "create_rls_function",  # is_short
    "create_table",
    "create_rls_function",  # all_todos
    "create_rls_function",  # are_there
    "create_policy",
]


def made(script: str) -> list[str]:
    return [name for name in operations(script) if name in ORDER]


@pytest.mark.exhaustive
def test_in_one_migration_there_and_back(project: Project, server: Server) -> None:
    project.migrate(nothing())
    before = project.state()
    metadata = models()
    nothing().tables["kept"].to_metadata(metadata)
    written = project.migrate(metadata)
    assert made(written) == ORDER
    after = project.state()
    project.downgrade()
    assert project.state() == before
    project.upgrade()
    assert project.state() == after

    written = project.migrate(nothing())
    assert [line for line in operations(written) if line in ("drop_rls_function", "drop_table")] == [
        "drop_rls_function",  # are_there
        "drop_rls_function",  # all_todos
        "drop_table",
        "drop_rls_function",  # is_short
        "drop_rls_function",  # a_default
        "drop_rls_function",  # who
    ]
    assert project.state() == before
    project.downgrade()
    assert project.state() == after
    project.upgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_as_a_script(project: Project, server: Server) -> None:
    project.migrate(nothing())
    before = project.state()
    found = re.search(r"revision = '(\w+)'\ndown_revision = '(\w+)'", project.revision(models()))
    assert found is not None
    new, old = found.groups()
    project.upgrade()
    after = project.state()
    up, down = project.script("upgrade", f"{old}:{new}"), project.script("downgrade", f"{new}:{old}")
    for script, expected in ((down, before), (up, after), (down, before)):
        with project.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            raw: Any = connection.connection.driver_connection
            raw.execute(script)
        assert project.state() == expected


@pytest.mark.exhaustive
def test_columns_that_come_and_go(project: Project) -> None:
    project.migrate(models(columns=False))
    before = project.state()
    project.migrate(models())
    after = project.state()
    project.downgrade()
    assert project.state() == before
    project.upgrade()
    project.migrate(models(columns=False))
    assert project.state() == before
    project.downgrade()
    assert project.state() == after


def _members(user: str, role: Any, *, is_boss: str) -> MetaData:
    """A function that reads columns of a table: one goes, and one gets another type."""
    metadata = MetaData()
    body = f"SELECT EXISTS (SELECT FROM public.members WHERE {user} = auth.user_id() AND {is_boss})"
    add_function(metadata, "is_boss", body=body)
    Table(
        "members",
        metadata,
        Column(user, Text),
        Column("role", role),
        Policy("it", "SELECT", authenticated, using=func.is_boss()),
    )
    return metadata


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "after",
    [
        lambda: _members("person_id", Text, is_boss="role = 'boss'"),
        lambda: _members("user_id", Integer, is_boss="role > 1"),
    ],
    ids=["dropped", "retyped"],
)
def test_a_downgrade_restores_a_function_after_the_columns_that_it_reads(
    project: Project, after: Callable[[], MetaData]
) -> None:
    project.migrate(_members("user_id", Text, is_boss="role = 'boss'"))
    before = project.state()
    written = project.revision(after())
    # Alembic leaves the cast to a person.
    script = next(one for one in project.folder.glob("versions/*.py") if one.read_text() == written)
    script.write_text(
        written.replace("type_=sa.Integer()", "type_=sa.Integer(), postgresql_using='role::int'")
    )
    project.upgrade()
    project.check(after())
    project.downgrade()
    assert project.state() == before
    project.upgrade()
    project.check(after())


@pytest.mark.exhaustive
def test_a_downgrade_restores_a_function_after_those_that_it_calls(project: Project) -> None:
    def calling(*, helper: bool) -> MetaData:
        metadata = nothing()
        if helper:
            add_function(metadata, "helper", body="SELECT true")
        add_function(metadata, "f", body="SELECT public.helper()" if helper else "SELECT false")
        return metadata

    project.migrate(calling(helper=True))
    before = project.state()
    project.migrate(calling(helper=False))
    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_who_may_make_nothing_can_compare(project: Project) -> None:
    project.migrate(nothing())
    project.engine_options = {"connect_args": {"options": "-c default_transaction_read_only=on"}}
    assert sorted(made(project.revision(models()))) == sorted(ORDER)


@pytest.mark.exhaustive
@pytest.mark.parametrize("isolation_level", ["READ COMMITTED", "AUTOCOMMIT"])
def test_create_all_and_drop_all(engine: Engine, isolation_level: Any) -> None:
    engine = engine.execution_options(isolation_level=isolation_level)
    metadata = models()
    metadata.create_all(engine)
    with engine.connect() as connection:
        once = state(connection)
    metadata.create_all(engine)
    with engine.connect() as connection:
        assert state(connection) == once
        functions = [line for kind, line in once if kind == "function privilege" and "auth" not in line]
        assert not [line for line in functions if " - " in line]
    metadata.drop_all(engine)
    assert inspect(engine).get_table_names() == []
    with engine.connect() as connection:
        left = [line for kind, line in state(connection) if kind == "function" and "public." in line]
    assert left == []


def test_create_all_without_a_database() -> None:
    shown = statements_of(models())
    places = [place for place, statement in enumerate(shown) if "FUNCTION who()" in statement]
    table = next(place for place, statement in enumerate(shown) if "CREATE TABLE todos" in statement)
    assert min(places) < table < max(places)


@pytest.mark.exhaustive
def test_what_cannot_be_compared_counts_as_changed(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    execute(
        project,
        "CREATE TABLE gone (id int)",
        "CREATE FUNCTION f(gone) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    metadata = MetaData()
    add_function(metadata, "f", arguments="one public.elsewhere", body="SELECT true")
    written = project.revision(metadata)
    assert "function 'f' counts as changed: its arguments or result name a missing type" in caplog.text
    assert {"drop_rls_function", "create_rls_function"} <= {*operations(written)}


def reading(*, of_itself: bool, there: bool = True) -> MetaData:
    """A table whose default calls a function whose body reads that table, or another new one."""
    metadata = nothing()
    if not there:
        return metadata
    read = "todos" if of_itself else "zz_limits"
    add_function(metadata, "highest", returns="integer", body=f"SELECT max(id) FROM public.{read}")
    add_function(metadata, "following", returns="integer", body="SELECT coalesce(public.highest(), 0) + 1")
    add_function(metadata, "unrelated", body="SELECT EXISTS (SELECT FROM public.todos)")
    Table(
        "todos",
        metadata,
        Column("id", Integer, server_default=func.following()),
        Policy("it", "SELECT", authenticated, using=func.unrelated()),
    )
    Table("zz_limits", metadata, Column("id", Integer))
    kept = metadata.tables["kept"]
    kept.append_column(Column("place", Integer, server_default=func.following()))
    return metadata


@pytest.mark.exhaustive
@pytest.mark.parametrize("of_itself", [True, False], ids=["itself", "another"])
def test_a_default_may_call_what_reads_a_new_table(project: Project, of_itself: bool) -> None:
    project.migrate(nothing())
    before = project.state()
    execute(project, "INSERT INTO kept VALUES (1)")
    written = project.migrate(reading(of_itself=of_itself))
    assert written.count("check_body=False") == 2
    found = [name for name in operations(written) if "function" in name or name == "create_table"]
    assert found == [
        "create_rls_function",  # highest
        "create_rls_function",  # following
        "create_table",
        "create_table",
        "create_rls_function",  # unrelated
        "check_rls_function",
        "check_rls_function",
    ]
    after = project.state()
    project.downgrade()
    assert project.state() == before
    project.upgrade()
    assert project.state() == after
    execute(project, "INSERT INTO todos DEFAULT VALUES")

    project.migrate(reading(of_itself=of_itself, there=False))
    assert project.state() == before
    project.downgrade()
    assert project.state() == after


@pytest.mark.exhaustive
def test_a_body_that_is_made_unchecked_is_checked_in_the_end(project: Project) -> None:
    metadata = MetaData()
    add_function(metadata, "f", returns="integer", body="SELECT max(id) FROM public.nowhere")
    Table("todos", metadata, Column("id", Integer, server_default=func.f()))
    project.revision(metadata)
    with pytest.raises(DBAPIError, match="nowhere"):
        project.upgrade()
    with pytest.raises(DBAPIError, match="nowhere"):
        metadata.create_all(project.engine)


@pytest.mark.exhaustive
@pytest.mark.parametrize("of_itself", [True, False], ids=["itself", "another"])
def test_create_all_where_a_default_calls_what_reads_a_new_table(engine: Engine, of_itself: bool) -> None:
    metadata = reading(of_itself=of_itself)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO todos DEFAULT VALUES"))
        assert connection.scalar(text("SHOW check_function_bodies")) == "on"
    metadata.drop_all(engine)
    assert inspect(engine).get_table_names() == []
