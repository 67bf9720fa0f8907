"""The tables that SQL text reads, as Postgres finds them."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.catalog.query import schemas_of, sql_file, trying
from sqla_rls.snapshot import Snapshot, TableKey, may_read

_READ = "SELECT * FROM pg_temp.sqla_rls_reads(:schemas, :tables, :expressions)"


def unread(snapshot: Snapshot) -> list[tuple[TableKey, str]]:
    """Return the SQL text that may read tables, each with the table of its policy."""
    expressions = (
        (policy.table, expression)
        for policy in snapshot.policies.values()
        for expression in (policy.using, policy.with_check)
        if expression is not None
    )
    # Most expressions only compare with the caller, so Postgres needn't read them.
    return [one for one in dict.fromkeys(expressions) if one not in snapshot.reads and may_read(one[1])]


def with_reads_of_text(
    connection: Connection, snapshot: Snapshot, tables: Container[TableKey], *, default_schema: str
) -> Snapshot:
    """Return *snapshot* with the tables that SQL text on the existing *tables* reads.

    It sends no statement if no text may read a table.
    """
    asked = [one for one in unread(snapshot) if one[0] in tables]
    if not asked:
        return snapshot
    arrays = {
        "schemas": schemas_of((table for table, _ in asked), default_schema),
        "tables": [table.name for table, _ in asked],
        "expressions": [expression for _, expression in asked],
    }
    query = text(_READ).bindparams(*(bindparam(name, type_=ARRAY(Text())) for name in arrays))
    found: dict[tuple[TableKey, str], list[TableKey]] = {}
    with trying(connection, "circles of policies aren't detected in SQL text"):
        connection.execute(text(sql_file("find_reads")))
        for place, schema, name in connection.execute(query, arrays).all():
            table = TableKey.of(schema, name, default_schema)
            found.setdefault(asked[place - 1], []).append(table)
    return replace(snapshot, reads={**snapshot.reads, **found})
