"""The functions that ``sqla-rls import`` declares, and remarks on the others."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields
from graphlib import CycleError, TopologicalSorter
from inspect import signature
from itertools import chain
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, MetaData

from sqla_rls.catalog.functions import function_of, read_functions
from sqla_rls.catalog.query import fetch_rows, sql_file
from sqla_rls.declare.collect import functions
from sqla_rls.declare.functions import sql_function
from sqla_rls.snapshot import PUBLIC, ObjectKey, SQLFunction, TableKey


class _Found(NamedTuple):
    value: SQLFunction
    is_called: bool
    #: The reason for which ``sql_function()`` can't declare it, as far as the catalog shows.
    obstacle: str | None
    #: The statement that creates it, if no migration does.
    statement: str | None
    is_of_extension: bool
    signature: str


@dataclass(frozen=True, slots=True)
class IntrospectedFunctions:
    #: The arguments of ``sql_function()``, without *to*.
    declared: dict[TableKey, dict[str, Any]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    #: SQL that creates the undeclared functions.
    run_first: list[str] = field(default_factory=list)
    #: The functions that this SQL creates, except those of extensions.
    made_first: set[ObjectKey] = field(default_factory=set)

    @property
    def objects(self) -> set[ObjectKey]:
        return {ObjectKey("FUNCTION", *key) for key in self.declared} | self.made_first


def read(connection: Connection, *, default_schema: str, schemas: Collection[str]) -> IntrospectedFunctions:
    """Return the functions that ``sql_function()`` can declare.

    They are the functions that *schemas* call, or that some roles may execute there.  Postgres decides: a
    function is declared only if its declaration gives the same function.
    """
    found = [
        _Found(
            function_of(row, default_schema),
            row["is_called"],
            row["obstacle"],
            row["extension"] or row["definition"],
            row["extension"] is not None,
            row["signature"],
        )
        for row in fetch_rows(connection, sql_file("functions_to_declare"), {"schemas": list(schemas)})
    ]
    obstacles = {one.value.key: one.obstacle for one in found if one.obstacle is not None}
    declarable = _in_order([one.value for one in found if one.value.key not in obstacles])
    said = {one.key: _arguments(one) for one in declarable}
    metadata = MetaData()
    for key, arguments in said.items():
        sql_function(key.name, metadata, to=PUBLIC, **arguments)
    compared = read_functions(
        connection, functions([metadata], default_schema), default_schema=default_schema
    )
    for key, live in compared.live.items():
        if differences := list(_differences(live, compared.declared[key])):
            obstacles[key] = " and ".join(differences)
    others = [
        one for one in found if one.is_called and one.value.key in obstacles and one.statement is not None
    ]
    statements = [one.statement for one in others if one.statement is not None]
    return IntrospectedFunctions(
        {key: arguments for key, arguments in said.items() if key not in obstacles},
        [
            *(_remark(key, why) for key, why in obstacles.items()),
            *dict.fromkeys(
                [
                    *(_remark_on_path(one.value.key, _runs(one.value)) for one in found if _is_lured(one)),
                    *_remarks_on_triggers(connection, default_schema, schemas),
                ]
            ),
        ],
        # Their bodies may read tables.
        ["SET LOCAL check_function_bodies = off", *dict.fromkeys(statements)] if statements else [],
        {ObjectKey("FUNCTION", one.value.schema, one.signature) for one in others if not one.is_of_extension},
    )


def _in_order(found: Collection[SQLFunction]) -> list[SQLFunction]:
    """Return the functions, each after those that its body calls; the order of circular calls is kept."""
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
    """Return whether the *search_path* argument alone gives the function's settings."""
    metadata = MetaData()
    path = _search_path(function)
    sql_function("f", metadata, to=PUBLIC, returns="int", body="", search_path=path)
    (declared,) = functions([metadata], None)
    return declared.settings == function.settings


def _search_path(function: SQLFunction) -> tuple[str, ...]:
    """Return the schemas of the search_path, which Postgres quotes like CSV; others compare unequal."""
    values = (one.removeprefix("search_path=") for one in function.settings if one.startswith("search_path="))
    lines = [line for value in values for line in value.splitlines(keepends=True)]
    listed = chain.from_iterable(csv.reader(lines, skipinitialspace=True))
    return tuple(one for one in listed if one != "pg_temp")


def _differences(live: SQLFunction, declared: SQLFunction) -> Iterator[str]:
    for name in (one.name for one in fields(SQLFunction)):
        live_value, declared_value = getattr(live, name), getattr(declared, name)
        if live_value != declared_value:
            yield f"its {name} would be {declared_value!r}, not {live_value!r}"


def _remark(key: TableKey, why: str) -> str:
    return f"function {'.'.join(filter(None, key))} isn't declared: {why}"


def _is_lured(one: _Found) -> bool:
    """Return whether callers choose the search_path of a function that has rights or decides about rows."""
    function = one.value
    return (
        (function.security_definer or one.is_called)
        and not one.is_of_extension
        # A body that isn't a string has bound its names.
        and bool(function.body)
        and function.language in ("sql", "plpgsql")
        and not any(setting.startswith("search_path=") for setting in function.settings)
    )


def _remarks_on_triggers(
    connection: Connection, default_schema: str, schemas: Collection[str]
) -> Iterator[str]:
    """Yield a remark for each trigger function that runs as its owner with the search_path of the caller."""
    query = sql_file("trigger_functions_of_callers")
    for row in fetch_rows(connection, query, {"schemas": list(schemas)}):
        key = TableKey.of(row["nspname"], row["proname"], default_schema)
        yield _remark_on_path(key, _AS_ITS_OWNER)


_AS_ITS_OWNER: Final = "it runs as its owner"


def _runs(function: SQLFunction) -> str:
    return _AS_ITS_OWNER if function.security_definer else "policies, views or defaults call it"


def _remark_on_path(key: TableKey, runs: str) -> str:
    return (
        f"function {'.'.join(filter(None, key))} is unsafe: {runs}, with the search_path of the "
        "caller, who can shadow the tables and functions that its body names. Give it a search_path"
    )
