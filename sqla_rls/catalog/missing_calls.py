"""Finds the views and functions that call a missing function of schema ``auth``; Postgres reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import ARRAY, Column, Connection, Enum, MetaData, Table, Text, bindparam, text
from sqlalchemy.exc import CompileError
from sqlalchemy.schema import CreateTable

from sqla_rls.catalog.query import sql_file, trying
from sqla_rls.ddl.compile import literally
from sqla_rls.ddl.functions import CreateFunction
from sqla_rls.snapshot import Snapshot, TableKey

_ASK = "SELECT * FROM pg_temp.sqla_rls_missing(:missing, :preparing, :statements)"


def missing_calls(
    connection: Connection, models: Snapshot, missing: Iterable[str], new_tables: Iterable[Table]
) -> Iterator[tuple[str, str]]:
    """Yield the views and functions of *models* that call a function of *missing*, with its name.

    *new_tables* are tables that the database doesn't have yet.  Postgres reads only the bodies in SQL.
    """
    named = {
        f"function {key.name!r}": _function(models, key)
        for key, function in models.functions.items()
        if function.language == "sql"
    }
    named |= {
        f"view {key.name!r}": f"CREATE OR REPLACE TEMPORARY VIEW {_quoted(key.name)} AS {view.definition}"
        for key, view in models.views.items()
    }
    if not named:
        return
    subjects = [*named]
    arrays = {
        # A call without a schema may mean a function of the models.
        "missing": sorted({*missing} - {key.name for key in models.functions}),
        "preparing": list(_made_of_columns(new_tables)),
        "statements": [*named.values()],
    }
    query = text(_ASK).bindparams(*(bindparam(name, type_=ARRAY(Text())) for name in arrays))
    rows: list[tuple[int, str]] = []
    with trying(connection, "calls of missing auth functions, in views and functions, aren't detected"):
        connection.execute(text(sql_file("find_missing_calls")))
        rows = [(place, name) for place, name in connection.execute(query, arrays)]
    for place, name in dict.fromkeys(rows):
        yield subjects[place - 1], name


def _function(models: Snapshot, key: TableKey) -> str:
    return str(CreateFunction(models.functions[key]).compile(dialect=literally(None)["dialect"]))


def _quoted(name: str) -> str:
    quoted: str = literally(None)["dialect"].identifier_preparer.quote(name)
    return quoted


def _made_of_columns(tables: Iterable[Table]) -> Iterator[str]:
    """Yield statements that create tables with only the columns of *tables*."""
    for table in tables:
        # The table itself would create the type of an Enum.
        columns = [
            Column(one.name, Text() if isinstance(one.type, Enum) else one.type) for one in table.columns
        ]
        try:
            alike = Table(table.name, MetaData(), *columns, schema=table.schema)
            yield str(CreateTable(alike).compile(**literally(None)))
        except CompileError:
            continue
