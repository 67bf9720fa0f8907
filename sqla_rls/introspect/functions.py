"""Which functions ``sqla-rls import`` declares, and why it leaves others alone."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields
from graphlib import CycleError, TopologicalSorter
from inspect import signature
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection, MetaData

from sqla_rls.catalog import functions as function_catalog
from sqla_rls.catalog import read as catalog
from sqla_rls.declare.collect import functions
from sqla_rls.declare.functions import sql_function
from sqla_rls.snapshot import AUTH_SCHEMA, PUBLIC, SECRET_SCHEMA, ObjectKey, SQLFunction, TableKey

# What is called where row security is enabled, by policies and column defaults, and by the views that are
# declared; what bodies call, as far as their text says; and what some may execute, but not everybody.
_TO_ADOPT = f"""
WITH RECURSIVE relation AS (
  SELECT c.oid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE n.nspname = ANY (:schemas)
     AND (c.relrowsecurity
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
   UNION
  SELECT other.oid
    FROM called AS c
    JOIN pg_catalog.pg_proc AS p ON p.oid = c.oid AND p.oid >= 16384
    JOIN pg_catalog.pg_proc AS other
      ON strpos(p.prosrc, other.proname || '(') > 0 OR strpos(p.prosrc, quote_ident(other.proname) || '(') > 0
    JOIN pg_catalog.pg_namespace AS n ON n.oid = other.pronamespace AND n.nspname = ANY (:schemas)
   WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid IN (p.oid, other.oid)
                        AND d.deptype = 'e')
)
SELECT f.*, c.oid IS NOT NULL AS is_called, e.extension,
       concat(f.proname, '(', pg_catalog.oidvectortypes(p.proargtypes), ')') AS signature,
       CASE WHEN e.extension IS NULL AND f.nspname = ANY (:schemas)
            THEN pg_catalog.pg_get_functiondef(p.oid) END AS definition,
       CASE WHEN e.extension IS NOT NULL THEN 'an extension made it'
            WHEN f.nspname <> ALL (:schemas) THEN 'give --schema ' || quote_ident(f.nspname) || ', too'
            WHEN EXISTS (SELECT FROM pg_catalog.pg_proc AS other
                          WHERE other.oid <> p.oid AND other.pronamespace = p.pronamespace
                            AND other.proname = p.proname) THEN 'several have its name'
            WHEN f.language IN ('c', 'internal') THEN 'it is in ' || f.language
            WHEN p.prosqlbody IS NOT NULL THEN 'its body is no string'
            WHEN p.procost <> 100 OR p.prorows NOT IN (0, 1000) OR p.prosupport <> 0
                 OR p.protrftypes IS NOT NULL THEN 'it has COST, ROWS, SUPPORT or TRANSFORM'
            WHEN EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) AS a
                          WHERE a.grantor <> p.proowner OR a.is_grantable AND a.grantee <> p.proowner)
            THEN 'EXECUTE on it is held WITH GRANT OPTION' END AS obstacle
  FROM ({function_catalog.FUNCTIONS}) AS f
  JOIN pg_catalog.pg_proc AS p USING (oid)
  LEFT JOIN called AS c USING (oid),
       LATERAL (SELECT max(format('CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA %I', x.extname, xn.nspname))
                  FROM pg_catalog.pg_depend AS d
                  JOIN pg_catalog.pg_extension AS x ON x.oid = d.refobjid
                  JOIN pg_catalog.pg_namespace AS xn ON xn.oid = x.extnamespace
                 WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
                   AND d.deptype = 'e') AS e (extension)
 WHERE f.nspname <> '{AUTH_SCHEMA}' AND p.oid >= 16384
   AND (c.oid IS NOT NULL
        OR f.nspname = ANY (:schemas) AND f.nspname <> '{SECRET_SCHEMA}' AND e.extension IS NULL
           AND EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) WHERE grantee <> p.proowner)
           AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) WHERE grantee = 0))
 ORDER BY p.oid
"""  # noqa: S608 - nothing in it comes from outside


class _Found(NamedTuple):
    value: SQLFunction
    is_called: bool
    #: Why ``sql_function()`` can't declare it, as far as the catalog tells.
    obstacle: str | None
    #: The statement that makes it, if a migration isn't to.
    statement: str | None
    is_of_extension: bool
    signature: str


@dataclass(frozen=True, slots=True)
class AdoptedFunctions:
    #: The arguments of ``sql_function()`` that say the same, without *to*.
    declared: dict[TableKey, dict[str, Any]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    #: SQL that makes the others.
    run_first: list[str] = field(default_factory=list)
    #: What that makes, but for extensions.
    made_first: set[ObjectKey] = field(default_factory=set)

    @property
    def objects(self) -> set[ObjectKey]:
        return {ObjectKey("FUNCTION", *key) for key in self.declared} | self.made_first


def read(connection: Connection, *, default_schema: str, schemas: Collection[str]) -> AdoptedFunctions:
    """Of what is called in *schemas*, or executable there for some, what ``sql_function()`` can declare.

    Postgres decides: only what it spells alike is declared.
    """
    found = [
        _Found(
            function_catalog.function_of(row, default_schema),
            row["is_called"],
            row["obstacle"],
            row["extension"] or row["definition"],
            row["extension"] is not None,
            row["signature"],
        )
        for row in catalog.rows(connection, _TO_ADOPT, {"schemas": list(schemas)})
    ]
    obstacles = {one.value.key: one.obstacle for one in found if one.obstacle is not None}
    declarable = _in_order([one.value for one in found if one.value.key not in obstacles])
    said = {one.key: _arguments(one) for one in declarable}
    metadata = MetaData()
    for key, arguments in said.items():
        sql_function(key.name, metadata, to=PUBLIC, **arguments)
    compared = function_catalog.read(
        connection, functions([metadata], default_schema), default_schema=default_schema
    )
    for key, live in compared.live.items():
        if differences := list(_differences(live, compared.declared[key])):
            obstacles[key] = " and ".join(differences)
    others = [
        one for one in found if one.is_called and one.value.key in obstacles and one.statement is not None
    ]
    statements = [one.statement for one in others if one.statement is not None]
    return AdoptedFunctions(
        {key: arguments for key, arguments in said.items() if key not in obstacles},
        [
            *(_remark(key, why) for key, why in obstacles.items()),
            *(_remark_on_path(one) for one in declarable if one.key not in obstacles and _is_lured(one)),
        ],
        # Their bodies may read tables.
        ["SET LOCAL check_function_bodies = off", *dict.fromkeys(statements)] if statements else [],
        {ObjectKey("FUNCTION", one.value.schema, one.signature) for one in others if not one.is_of_extension},
    )


def _in_order(found: Collection[SQLFunction]) -> list[SQLFunction]:
    """Each after those that it calls, as far as its body says; those that call one another as they are."""
    by_key = {one.key: one for one in found}
    calls = {
        one.key: {other.key for other in found if other is not one and f"{other.name}(" in one.body}
        for one in found
    }
    try:
        return [by_key[key] for key in TopologicalSorter(calls).static_order()]
    except CycleError:
        return list(found)


def _arguments(function: SQLFunction) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "arguments": function.arguments,
        "returns": function.returns,
        "body": function.body,
        "schema": function.schema,
        "volatility": function.volatility,
        "security_definer": function.security_definer,
        "search_path": _search_path(function),
        "language": function.language,
        "parallel": function.parallel,
        "strict": function.strict,
        "leakproof": function.leakproof,
    }
    if not _is_path_alone(function):
        settings = dict(one.split("=", 1) for one in function.settings)
        arguments |= {"search_path": None, "settings": settings or None}
    known = signature(sql_function).parameters
    return {name: value for name, value in arguments.items() if value != known[name].default}


def _is_path_alone(function: SQLFunction) -> bool:
    """Whether its settings are what *search_path* makes of its schemas."""
    metadata = MetaData()
    path = _search_path(function)
    sql_function("f", metadata, to=PUBLIC, returns="int", body="", search_path=path)
    (declared,) = functions([metadata], None)
    return declared.settings == function.settings


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


def _remark(key: TableKey, why: str) -> str:
    return f"function {'.'.join(filter(None, key))} isn't declared: {why}"


def _is_lured(function: SQLFunction) -> bool:
    """Whether callers choose what the names in its body mean, though it runs as its owner."""
    return function.security_definer and not any(one.startswith("search_path=") for one in function.settings)


def _remark_on_path(function: SQLFunction) -> str:
    return (
        f"function {'.'.join(filter(None, function.key))} runs as its owner, on the caller's search_path: a "
        "caller can put tables and functions in front of those that its body names. Give it a search_path"
    )
