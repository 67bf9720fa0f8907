"""Statements for views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Table
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler
from sqlalchemy.sql.selectable import SelectBase

from sqla_rls.ddl.compile import literally, with_whole_text
from sqla_rls.ddl.script import dollar_quoted, made_twice, qualified, sql
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import TableKey, View


def query_text(
    query: SelectBase,
    name: str,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
    copied: Callable[[Table], Table] | None = None,
) -> str:
    """Return *query* as SQL text, for view *name*; *copied* is as in ``literally()``.

    Raises:
        DeclarationError: the query can't be written as SQL text.
    """
    try:
        return str(with_whole_text(query).compile(**literally(schema_translate_map, copied)))
    except CompileError as error:
        raise DeclarationError(f"the query of view {name!r} can't be written as SQL text: {error}") from error


class CreateView(ExecutableDDLElement):
    """Creates a view; with *replace*, an existing view keeps its privileges, and must keep its columns."""

    def __init__(self, view: View, *, replace: bool = False) -> None:
        self.view, self.replace = view, replace


class DropView(ExecutableDDLElement):
    def __init__(self, key: TableKey, *, if_exists: bool = False) -> None:
        self.key, self.if_exists = key, if_exists


@compiles(CreateView, "postgresql")
def _create_view(create: CreateView, compiler: DDLCompiler, **kw: Any) -> str:
    name = qualified(create.view.key, compiler)
    options = [
        *["security_invoker=true"] * create.view.security_invoker,
        *["security_barrier=true"] * create.view.security_barrier,
        *([f"check_option={create.view.check_option}"] if create.view.check_option else []),
    ]
    made_of = f"WITH ({', '.join(options)}) " if options else ""
    made_of += f"AS {sql(create.view.definition, compiler)}"
    statement = f"CREATE {'OR REPLACE ' if create.replace else ''}VIEW {name} {made_of}"
    return made_twice(
        statement,
        undo=None if create.replace else f"DROP VIEW {name}",
        plain=statement,
        subject=f"view {name}",
        stored=f"SELECT pg_catalog.pg_get_viewdef({dollar_quoted(name)}::regclass)",
        compiler=compiler,
    )


@compiles(DropView, "postgresql")
def _drop_view(drop: DropView, compiler: DDLCompiler, **kw: Any) -> str:
    return f"DROP VIEW {'IF EXISTS ' if drop.if_exists else ''}{qualified(drop.key, compiler)}"
