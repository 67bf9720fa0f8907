"""Views that ``create_all()`` creates, and ``drop_all()`` drops."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    create_mock_engine,
    select,
    text,
)
from sqlalchemy.dialects import postgresql

from sqla_rls import (
    Policy,
    grant,
    view,
)
from tests.support.views import READER, models

pytestmark = pytest.mark.sqlalchemy


def everything_there(engine: Engine) -> list[str]:
    query = "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'v') AND oid >= 16384 ORDER BY 1"
    with engine.connect() as connection:
        return list(connection.scalars(text(query)))


def stacked() -> MetaData:
    metadata = models()
    todos = metadata.tables["todos"]
    notes = Table("notes", metadata, Column("id", Integer), Policy("it", "SELECT", READER, using=True))
    lower = view("lower", metadata, select(todos.c.id), grant("SELECT", to=READER))
    both = select(lower.c.id).join(notes, notes.c.id == lower.c.id)
    view("upper", metadata, both, grant("SELECT", columns=["id"], to=READER))
    return metadata


@pytest.mark.exhaustive
def test_create_all_makes_it_and_drop_all_drops_it(engine: Engine) -> None:
    metadata = stacked()
    metadata.create_all(engine)
    metadata.create_all(engine)
    assert everything_there(engine) == ["lower", "my_todos", "notes", "todos", "upper"]
    with engine.connect() as connection:
        assert (
            compare_metadata(
                MigrationContext.configure(connection, opts={"target_metadata": metadata}), metadata
            )
            == []
        )
    metadata.drop_all(engine)
    assert everything_there(engine) == []


@pytest.mark.exhaustive
def test_create_all_of_some_tables_makes_the_views_that_can_be_made(engine: Engine) -> None:
    metadata = stacked()
    todos, notes = (metadata.tables[name] for name in ("todos", "notes"))
    metadata.create_all(engine, tables=[todos])
    assert everything_there(engine) == ["lower", "my_todos", "todos"]
    metadata.create_all(engine)
    assert everything_there(engine) == ["lower", "my_todos", "notes", "todos", "upper"]
    metadata.drop_all(engine, tables=[notes])
    assert everything_there(engine) == ["lower", "todos"]
    metadata.drop_all(engine)
    assert everything_there(engine) == []


def test_create_all_in_another_schema(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Else Where"'))
    metadata = MetaData()
    todos = Table("todos", metadata, Column("id", Integer), Policy("it", "SELECT", READER, using=True))
    view("my_todos", metadata, select(todos.c.id), grant("SELECT", to=READER))
    translated = engine.execution_options(schema_translate_map={None: "Else Where"})
    metadata.create_all(translated)
    metadata.create_all(translated)
    with engine.connect() as connection:
        definition = connection.scalar(text("""SELECT pg_get_viewdef('"Else Where".my_todos')"""))
        assert '"Else Where".todos' in definition
    metadata.drop_all(translated)
    assert everything_there(engine) == []


def test_create_all_on_paper() -> None:
    written: list[str] = []

    def write(statement: Any, *_: object) -> None:
        written.append(str(statement.compile(dialect=postgresql.dialect())))  # type: ignore[no-untyped-call]

    stacked().create_all(create_mock_engine("postgresql+psycopg://", write), checkfirst=False)
    assert sum("CREATE VIEW" in one for one in written) == 3
