"""Expressions of declared policies, as Postgres reads and prints them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.analyze.why.target import script
from sqla_rls.analyze.worlds.objects import Edge
from sqla_rls.catalog.query import pinned, trying
from sqla_rls.snapshot import Policy, TableKey

_DESCRIBE = text(
    "SELECT * FROM pg_temp.sqla_rls_described(ARRAY(SELECT pg_catalog.format("
    "E'SELECT FROM %I.%I WHERE (%s\\n)', e.schema_name, e.table_name, e.expression) "
    "FROM unnest(:schemas, :tables, :expressions) WITH ORDINALITY "
    "AS e (schema_name, table_name, expression, place) ORDER BY e.place))"
)


@dataclass(slots=True)
class Expression:
    """An expression as Postgres prints it, with the columns, functions and types that it reads."""

    sql: str
    edges: tuple[Edge, ...] = ()
    types: tuple[tuple[str, str], ...] = ()
    refusal: str | None = None


def describe(
    connection: Connection, policies: Iterable[Policy], default_schema: str
) -> Mapping[tuple[TableKey, str], Expression]:
    """Return each expression as Postgres prints it with every name qualified."""
    asked = list(
        dict.fromkeys(
            (policy.table, sql)
            for policy in policies
            for sql in (policy.using, policy.with_check)
            if sql is not None
        )
    )
    found = {one: Expression("false", refusal="it made no temporary object") for one in asked}
    if not asked:
        return found
    arrays = {
        "schemas": [table.schema or default_schema for table, _ in asked],
        "tables": [table.name for table, _ in asked],
        "expressions": [sql for _, sql in asked],
    }
    statement = _DESCRIBE.bindparams(*(bindparam(name, type_=ARRAY(Text())) for name in arrays))
    with pinned(connection), trying(connection, "no change of access is decided"):
        connection.exec_driver_sql(script("describe_expressions"), execution_options={"no_parameters": True})
        for row in connection.execute(statement, arrays):
            found[asked[row.place - 1]] = _expression(row)
    return found


def _expression(row: Any) -> Expression:
    if row.refusal is not None:
        return Expression("false", refusal=row.refusal)
    refs: Sequence[Mapping[str, Any]] = row.refs or ()
    edges = tuple(
        Edge("policy", one["reads"], one["column"], one["calls"])
        for one in refs
        if one["reads"] is not None or one["calls"] is not None
    )
    types = tuple((schema, name) for schema, name in (one["type"] for one in refs if one["type"] is not None))
    return Expression(_predicate(row.spelling), edges, types)


def _predicate(body: str) -> str:
    """Return the condition after WHERE in ``BEGIN ATOMIC SELECT FROM … WHERE condition; END``."""
    from pglast.parser import scan

    depth, start, end = 0, 0, len(body)
    for token in scan(body):
        if token.name == "ASCII_40":
            depth += 1
        elif token.name == "ASCII_41":
            depth -= 1
        elif depth == 0 and token.name == "WHERE" and not start:
            start = token.end + 1
        elif depth == 0 and token.name == "ASCII_59":
            end = token.start
    return body[start:end].strip()
