"""Reads views, and lets Postgres decide whether the declared ones are equal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.catalog.query import fetch_rows, key_of, schemas_of, sql_file, trying
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import ObjectKey, TableKey, View, unless_default

log = autogenerate_log(__name__)


_COMPARE = "SELECT * FROM pg_temp.sqla_rls_views(:schemas, :views, :definitions) ORDER BY place"


class Views(NamedTuple):
    """The views of the database, and those of the models; each after the views that it reads."""

    live: Mapping[TableKey, View]
    declared: Mapping[TableKey, View]
    #: The views that can't be replaced, since their columns or an object that they read change.
    recreated: frozenset[TableKey]
    #: The undeclared views that read dropped or altered objects.
    in_the_way: frozenset[TableKey]


def read_views(
    connection: Connection,
    declared: Mapping[TableKey, View],
    *,
    made: Collection[TableKey],
    default_schema: str,
    columns: Iterable[tuple[TableKey, str | None]],
    functions: Collection[ObjectKey],
    grown: Collection[TableKey],
) -> Views:
    """Return the views of the database and of the models.

    Args:
        connection: the connection.
        declared: the views of the models.
        made: the views of earlier revisions.
        default_schema: the default schema.
        columns: the columns that the migration drops or alters; None stands for the whole table.
        functions: the functions that the migration drops or recreates.
        grown: the tables that gain columns.
    """
    keys = list({**declared, **dict.fromkeys(made)})
    if not keys:
        return Views({}, {}, frozenset(), frozenset())
    live = views_in(connection, keys, default_schema=default_schema)
    compared, recreated = _compared(connection, {**declared}, live, default_schema)
    recreated |= {
        key
        for key in _expanded(connection, grown, default_schema) & compared.keys() & live.keys()
        if "*" in declared[key].definition
    }
    changed = [(key, None) for key in live if key in recreated or key not in declared]
    dependents = _dependent(connection, [*columns, *changed], functions, default_schema)
    recreated |= dependents & declared.keys()
    # The declared text, since the live one has the old columns in place of "*".
    compared |= {key: declared[key] for key in recreated if "*" in declared[key].definition}
    return Views(live, compared, frozenset(recreated), frozenset(dependents - live.keys()))


def views_in(
    connection: Connection, keys: Collection[TableKey], *, default_schema: str
) -> dict[TableKey, View]:
    """Return the existing views of *keys*, each after the views that it reads."""
    from graphlib import TopologicalSorter  # most databases have no declared view

    rows = {
        row["oid"]: row for row in fetch_rows(connection, sql_file("views"), _named(keys, default_schema))
    }
    found: dict[TableKey, View] = {}
    for oid in TopologicalSorter(
        {oid: rows.keys() & row["reads"] for oid, row in rows.items()}
    ).static_order():
        row = rows[oid]
        view = View(
            schema=unless_default(row["nspname"], default_schema),
            name=row["relname"],
            definition=row["definition"].strip(),
            security_invoker=row["security_invoker"],
            security_barrier=row["security_barrier"],
            check_option=row["check_option"],
            comment=row["comment"],
            column_comments=tuple((column, comment) for column, comment in row["column_comments"]),
        )
        found[view.key] = view
    return found


def triggers_and_rules(
    connection: Connection, keys: Collection[TableKey], *, default_schema: str
) -> dict[TableKey, list[str]]:
    """Return the triggers and rules of each view of *keys* that has some: ``trigger guard``."""
    found: dict[TableKey, list[str]] = {}
    rows = fetch_rows(connection, _TRIGGERS_AND_RULES, _named(keys, default_schema)) if keys else ()
    for row in rows:
        found.setdefault(key_of(row, default_schema), []).append(f"{row['kind']} {row['name']}")
    return found


_TRIGGERS_AND_RULES = """
SELECT n.nspname, c.relname, x.kind, x.name
  FROM unnest(CAST(:schemas AS text[]), CAST(:views AS text[])) AS asked (nspname, relname)
  JOIN pg_catalog.pg_namespace AS n ON n.nspname = asked.nspname
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = asked.relname
 CROSS JOIN LATERAL (
   SELECT 'trigger', t.tgname FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
    UNION ALL
   SELECT 'rule', r.rulename FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid AND r.ev_type <> '1'
 ) AS x (kind, name)
 ORDER BY 1, 2, 3, 4
"""


class PastRowSecurity(NamedTuple):
    """A view that shows other roles rows of *tables* that its owner reads without row security."""

    key: TableKey
    owner: str
    tables: str
    is_materialized: bool
    #: The quoted name.
    quoted: str
    grantees: str

    def __str__(self) -> str:
        hint = (
            f"Run REVOKE ALL ON {self.quoted} FROM {self.grantees}, and show callers their rows of it by a "
            "view() with a WHERE and security_invoker=False, or by a function with security_definer=True"
            if self.is_materialized
            else "Run ALTER VIEW … SET (security_invoker = true), or declare it by view()"
        )
        return (
            f"{'materialized ' * self.is_materialized}view {self.key.name} bypasses the row security of "
            f"{self.tables}: other roles read the rows that its owner {self.owner} can read. {hint}"
        )


def views_past_row_security(
    connection: Connection, keys: Collection[TableKey], *, default_schema: str
) -> list[PastRowSecurity]:
    """Return the views of *keys* that show other roles rows that their owner reads without row security."""
    if not keys:
        return []
    return [
        PastRowSecurity(
            key_of(row, default_schema),
            row["owner"],
            row["tables"],
            row["is_materialized"],
            row["view"],
            row["grantees"],
        )
        for row in fetch_rows(connection, sql_file("views_past_row_security"), _named(keys, default_schema))
    ]


def _named(keys: Collection[TableKey], default_schema: str) -> dict[str, list[str]]:
    return {"schemas": schemas_of(keys, default_schema), "views": [one.name for one in keys]}


def _compared(
    connection: Connection,
    declared: dict[TableKey, View],
    live: Mapping[TableKey, View],
    default_schema: str,
) -> tuple[dict[TableKey, View], set[TableKey]]:
    """Return *declared*, with the text of *live* if it is equal, and the views that can't be replaced."""
    asked = [key for key in declared if key in live]
    cannot_be_replaced = set(asked)
    arrays = {
        **_named(asked, default_schema),
        "definitions": [declared[key].definition for key in asked],
    }
    if not asked:
        return declared, cannot_be_replaced
    query = text(_COMPARE).bindparams(*(bindparam(name, type_=ARRAY(Text())) for name in arrays))
    with trying(connection, "every view counts as changed"):
        connection.execute(text(sql_file("compare_views")))
        for key, row in zip(asked, connection.execute(query, arrays), strict=True):
            if row.refusal is not None:
                log.warning(
                    "view %r counts as changed: Postgres can't read it before the migration (%s)",
                    key.name,
                    row.refusal,
                )
            elif row.same_columns:
                cannot_be_replaced.remove(key)
            if row.same:
                declared[key] = replace(declared[key], definition=live[key].definition)
    return declared, cannot_be_replaced


def _expanded(connection: Connection, grown: Collection[TableKey], default_schema: str) -> set[TableKey]:
    """Return the views that name every column of a table of *grown*, as Postgres stores a ``*``."""
    if not grown:
        return set()
    parameters = {
        "schemas": schemas_of(grown, default_schema),
        "tables": [table.name for table in grown],
    }
    return {
        key_of(row, default_schema)
        for row in fetch_rows(connection, sql_file("views_on_every_column"), parameters)
    }


def _dependent(
    connection: Connection,
    columns: Collection[tuple[TableKey, str | None]],
    functions: Collection[ObjectKey],
    default_schema: str,
) -> set[TableKey]:
    """Return the views of all schemas that read one of *columns* or call one of *functions*."""
    if not (columns or functions):
        return set()
    parameters = {
        "schemas": schemas_of((table for table, _ in columns), default_schema),
        "tables": [table.name for table, _ in columns],
        "columns": [column for _, column in columns],
        "function_schemas": schemas_of(functions, default_schema),
        "functions": [one.name for one in functions],
    }
    return {
        key_of(row, default_schema) for row in fetch_rows(connection, sql_file("dependent_views"), parameters)
    }
