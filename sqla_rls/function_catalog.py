"""Reads functions, and has Postgres spell those that are declared.

A function that is no longer declared is known by the comment that it was made with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, RowMapping

from sqla_rls import catalog
from sqla_rls.ddl_functions import CreateTemporaryFunctions
from sqla_rls.exc import DeclarationError
from sqla_rls.objects import AUTH_SCHEMA, ObjectKey, SQLFunction, TableKey

_FUNCTIONS = """
SELECT n.nspname, p.proname, pg_catalog.pg_get_function_arguments(p.oid) AS arguments,
       pg_catalog.pg_get_function_result(p.oid) AS returns, p.prosrc AS body, l.lanname AS language,
       CASE p.provolatile WHEN 's' THEN 'STABLE' WHEN 'i' THEN 'IMMUTABLE' ELSE 'VOLATILE' END AS volatility,
       CASE p.proparallel WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' ELSE 'UNSAFE' END AS parallel,
       p.prosecdef AS security_definer, p.proisstrict AS strict, p.proleakproof AS leakproof,
       coalesce(p.proconfig, '{}') AS settings
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
 WHERE p.prokind = 'f'
"""
_OURS_OR_NAMED = f"""{_FUNCTIONS}
   AND (n.nspname, p.proname) IN (SELECT * FROM unnest(:function_schemas, :functions))
    OR n.nspname = ANY (:schemas) AND n.nspname <> '{AUTH_SCHEMA}'
   AND pg_catalog.obj_description(p.oid, 'pg_proc') = 'made by sqla_rls'
"""  # noqa: S608 - nothing in it comes from outside
_TEMPORARY = f"{_FUNCTIONS} AND p.pronamespace = pg_catalog.pg_my_temp_schema()"


@dataclass(frozen=True, slots=True)
class FunctionChange:
    """*before* is None for a new function, *after* for one that goes."""

    before: SQLFunction | None
    after: SQLFunction | None

    @property
    def replaces(self) -> bool:
        """Whether CREATE OR REPLACE will do: it changes neither the arguments nor the result."""
        return (
            self.before is not None
            and self.after is not None
            and (self.before.arguments, self.before.returns) == (self.after.arguments, self.after.returns)
        )


@dataclass(frozen=True, slots=True)
class Functions:
    """Those of the database, and those of the models as Postgres spells them."""

    live: Mapping[TableKey, SQLFunction] = field(default_factory=dict)
    declared: Mapping[TableKey, SQLFunction] = field(default_factory=dict)

    @property
    def objects(self) -> set[ObjectKey]:
        return {ObjectKey("FUNCTION", *key) for key in self.live}

    @property
    def made_anew(self) -> set[ObjectKey]:
        """What a migration drops or makes, and with it all privileges on it."""
        changes = [change for change in self.changes if not change.replaces]
        return {
            ObjectKey("FUNCTION", *one.key)
            for change in changes
            for one in (change.before, change.after)
            if one is not None
        }

    @property
    def changes(self) -> list[FunctionChange]:
        keys = sorted({*self.live, *self.declared}, key=str)
        pairs = [FunctionChange(self.live.get(key), self.declared.get(key)) for key in keys]
        return [pair for pair in pairs if pair.before != pair.after]


def read(
    connection: Connection,
    declared: Collection[SQLFunction],
    *,
    default_schema: str,
    schemas: Collection[str],
) -> Functions:
    """Raises DeclarationError for a declared function whose name several have."""
    parameters = {
        "schemas": list(schemas),
        "function_schemas": [one.schema or default_schema for one in declared],
        "functions": [one.name for one in declared],
    }
    live: dict[TableKey, SQLFunction] = {}
    for row in catalog.rows(connection, _OURS_OR_NAMED, parameters):
        function = _function(row, None if row["nspname"] == default_schema else row["nspname"])
        if function.key in live:
            raise DeclarationError(
                f"there are several functions {function.name!r} in schema {row['nspname']!r}: sql_function() "
                "knows one by its name"
            )
        live[function.key] = function
    wanted = {one.key: one for one in declared}
    if declared:
        with catalog.trying(connection, "functions count as changed"):
            connection.execute(CreateTemporaryFunctions(*declared))
            spelled = {row["proname"]: row for row in catalog.rows(connection, _TEMPORARY)}
            wanted = {one.key: _function(spelled[one.name], one.schema) for one in declared}
    return Functions(live, wanted)


def _function(row: RowMapping, schema: str | None) -> SQLFunction:
    values = {name: row[name] for name in SQLFunction.__slots__ if name in row}
    found = SQLFunction(schema=schema, name=row["proname"], **values)
    return replace(found, settings=tuple(row["settings"]))
