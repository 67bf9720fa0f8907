"""Which functions ``sqla-rls import`` declares, and why it leaves others alone."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields
from inspect import signature
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection, MetaData

from sqla_rls import catalog, function_catalog
from sqla_rls.declared import functions
from sqla_rls.functions import sql_function
from sqla_rls.objects import AUTH_SCHEMA, PUBLIC, ObjectKey, SQLFunction, TableKey

# What is called where row security is enabled, by policies and column defaults, and by the views that are
# declared; and what a migration made.  An older one comes first: it calls none that is younger.
_TO_ADOPT = f"""
WITH relation AS (
  SELECT c.oid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE n.nspname = ANY (:schemas)
     AND (c.relrowsecurity
          OR c.relkind = 'v' AND pg_catalog.obj_description(c.oid, 'pg_class') = 'made by sqla_rls'
          OR EXISTS (SELECT FROM pg_catalog.pg_options_to_table(c.reloptions)
                      WHERE option_name = 'security_invoker' AND option_value::boolean))
), called AS (
  SELECT d.refobjid AS oid
    FROM pg_catalog.pg_depend AS d
    LEFT JOIN pg_catalog.pg_policy AS p ON d.classid = 'pg_catalog.pg_policy'::regclass AND p.oid = d.objid
    LEFT JOIN pg_catalog.pg_attrdef AS a ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid
    LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
    JOIN relation AS c ON c.oid IN (p.polrelid, a.adrelid, r.ev_class)
   WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass
)
SELECT f.*, o.is_ours,
       CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                          WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
                            AND d.deptype = 'e') THEN 'an extension made it'
            WHEN f.nspname <> ALL (:schemas) THEN 'give --schema ' || quote_ident(f.nspname) || ', too'
            WHEN EXISTS (SELECT FROM pg_catalog.pg_proc AS other
                          WHERE other.oid <> p.oid AND other.pronamespace = p.pronamespace
                            AND other.proname = p.proname) THEN 'several have its name'
            WHEN f.language <> 'sql' THEN 'it is in ' || f.language
            WHEN p.prosqlbody IS NOT NULL THEN 'its body is no string'
            WHEN p.procost <> 100 OR p.prorows NOT IN (0, 1000) OR p.prosupport <> 0
                 OR p.protrftypes IS NOT NULL THEN 'it has COST, ROWS, SUPPORT or TRANSFORM'
            WHEN EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) AS a
                          WHERE a.grantor <> p.proowner OR a.is_grantable AND a.grantee <> p.proowner)
            THEN 'EXECUTE on it is held WITH GRANT OPTION' END AS obstacle
  FROM ({function_catalog.FUNCTIONS}) AS f
  JOIN pg_catalog.pg_proc AS p USING (oid),
       coalesce(pg_catalog.obj_description(p.oid, 'pg_proc') = 'made by sqla_rls', false) AS o (is_ours)
 WHERE f.nspname <> '{AUTH_SCHEMA}' AND p.oid >= 16384
   AND (p.oid IN (SELECT oid FROM called) OR f.nspname = ANY (:schemas) AND o.is_ours)
 ORDER BY p.oid
"""  # noqa: S608 - nothing in it comes from outside


class _Found(NamedTuple):
    value: SQLFunction
    is_ours: bool
    #: Why ``sql_function()`` can't declare it, as far as the catalog tells.
    obstacle: str | None


@dataclass(frozen=True, slots=True)
class AdoptedFunctions:
    #: The arguments of ``sql_function()`` that say the same, without *to*.
    declared: dict[TableKey, dict[str, Any]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def objects(self) -> set[ObjectKey]:
        return {ObjectKey("FUNCTION", *key) for key in self.declared}


def read(connection: Connection, *, default_schema: str, schemas: Collection[str]) -> AdoptedFunctions:
    """Of what is called in *schemas*, and what migrations made there, what ``sql_function()`` can declare.

    Postgres decides: only what it spells alike is declared.
    """
    found = [
        _Found(function_catalog.function_of(row, default_schema), row["is_ours"], row["obstacle"])
        for row in catalog.rows(connection, _TO_ADOPT, {"schemas": list(schemas)})
    ]
    obstacles = {one.value.key: one.obstacle for one in found if one.obstacle is not None}
    said = {one.value.key: _arguments(one.value) for one in found if one.value.key not in obstacles}
    metadata = MetaData()
    for key, arguments in said.items():
        sql_function(metadata, key.name, to=PUBLIC, **arguments)
    compared = function_catalog.read(
        connection, functions([metadata], default_schema), default_schema=default_schema, schemas=()
    )
    for key, live in compared.live.items():
        if differences := list(_differences(live, compared.declared[key])):
            obstacles[key] = " and ".join(differences)
    ours = {one.value.key for one in found if one.is_ours}
    return AdoptedFunctions(
        {key: arguments for key, arguments in said.items() if key not in obstacles},
        [_remark(key, why, is_ours=key in ours) for key, why in obstacles.items()],
    )


def _arguments(function: SQLFunction) -> dict[str, Any]:
    arguments = {
        "arguments": function.arguments,
        "returns": function.returns,
        "body": function.body,
        "schema": function.schema,
        "volatility": function.volatility,
        "security_definer": function.security_definer,
        "search_path": _search_path(function),
    }
    known = signature(sql_function).parameters
    return {name: value for name, value in arguments.items() if value != known[name].default}


def _search_path(function: SQLFunction) -> tuple[str, ...]:
    """Its schemas, which Postgres quotes as CSV does; a path that isn't such a list doesn't compare equal."""
    values = (one.removeprefix("search_path=") for one in function.settings if one.startswith("search_path="))
    lines = [line for value in values for line in value.splitlines(keepends=True)]
    listed = chain.from_iterable(csv.reader(lines, skipinitialspace=True))
    return tuple(one for one in listed if one != "pg_temp")


def _differences(live: SQLFunction, declared: SQLFunction) -> Iterator[str]:
    for name in (one.name for one in fields(SQLFunction)):
        its, ours = getattr(live, name), getattr(declared, name)
        if its != ours:
            yield f"its {name} would be {ours!r}, not {its!r}"


def _remark(key: TableKey, why: str, *, is_ours: bool) -> str:
    name = ".".join(filter(None, key))
    consequence = ": autogenerate will drop it, since a migration made it" if is_ours else ""
    return f"function {name} isn't declared: {why}{consequence}"
