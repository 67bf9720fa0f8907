"""Reads functions, and the declared functions as Postgres spells them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import DBAPIError

from sqla_rls.catalog.auth_functions import auth_functions
from sqla_rls.catalog.query import fetch_rows, schemas_of, sql_file, trying, undone
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.ddl.functions import CreateFunction, CreateTemporaryFunctions, HideFunction
from sqla_rls.exc import DeclarationError
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import ObjectKey, SQLFunction, TableKey, unless_default

log = autogenerate_log(__name__)


class Functions(NamedTuple):
    """The functions of the database, and those of the models as Postgres spells them.

    Each comes after the functions that it calls: after older ones in the database, and after earlier ones in
    the models.
    """

    live: Mapping[TableKey, SQLFunction]
    declared: Mapping[TableKey, SQLFunction]
    #: The functions that column defaults may call: created before the tables, and dropped after them.
    beneath_tables: Collection[TableKey]
    #: Those of them whose bodies read new or dropped tables, so that Postgres can't check them yet.
    unchecked: Collection[TableKey]

    @property
    def objects(self) -> set[ObjectKey]:
        return {ObjectKey("FUNCTION", *key) for key in self.live}


def read_functions(
    connection: Connection,
    declared: Collection[SQLFunction],
    *,
    default_schema: str,
    made: Collection[TableKey] = (),
    defaults: Callable[[], Collection[str]] = tuple,
    dropped: Collection[str] = (),
) -> Functions:
    """Return the functions of the database and of the models.

    Args:
        connection: the connection.
        declared: the functions of the models.
        default_schema: the default schema.
        made: the functions of earlier revisions.
        defaults: a function that returns SQL text, which calls functions before new tables exist.
        dropped: the names of dropped tables and columns.

    Raises:
        DeclarationError: the database has several functions with the name of a declared one.
    """
    if not (declared or made):
        return Functions({}, {}, (), ())
    wanted = {one.key: one for one in declared}
    found = _rows(
        connection, sql_file("named_functions"), default_schema, _named({*wanted, *made}, default_schema)
    )
    several = {key for key, count in Counter(one.key for one in found).items() if count > 1}
    for key in sorted(several & wanted.keys(), key=str):
        raise DeclarationError(
            f"function {key.name!r} can't be compared: schema {key.schema or default_schema!r} has several "
            "of this name. Rename the declared one, or drop the others"
        )
    # If several have one name, the one of the revision is unknown.
    live = {one.key: one for one in found if one.key not in several}
    if declared:
        with trying(connection, "functions count as changed"):
            connection.execute(CreateTemporaryFunctions(*declared))
            spelled = {
                one.name: one for one in _rows(connection, sql_file("temporary_functions"), default_schema)
            }
            for place, one in enumerate(declared):
                if spelling := spelled.get(CreateTemporaryFunctions.name(place)):
                    asked_for = replace(spelling, schema=one.schema, name=one.name)
                    # Postgres stores a body unchanged, except for the schema in place of CURRENT_SCHEMA.
                    same = asked_for == live.get(one.key)
                    wanted[one.key] = asked_for if same else replace(asked_for, body=one.body)
                elif one.key in live:
                    log.warning(
                        "function %r counts as changed: its arguments or result name a missing type",
                        one.name,
                    )
    new = [one for key, one in wanted.items() if key not in live]
    made = _made_with_tables_as_they_are(connection, new, default_schema)
    called = _called_by_tables(
        connection, {key: one for key, one in live.items() if key not in wanted}, default_schema
    )
    unchecked = {key for key in called if any(name in live[key].body for name in dropped)}
    if waiting := [one for one in new if one.key not in made]:
        texts = defaults()
        named = [place for place, one in enumerate(waiting) if any(one.name in text for text in texts)]
        # A function may call those that are declared before it.
        early = {one.key for one in waiting[: max(named, default=-1) + 1]}
        if early:
            unchecked |= (
                _made_with_tables_as_they_are(
                    connection,
                    [one for one in new if one.key in early | made],
                    default_schema,
                    check_bodies=False,
                )
                - made
            )
    return Functions(live, wanted, made | called | unchecked, unchecked)


def _made_with_tables_as_they_are(
    connection: Connection,
    functions: Collection[SQLFunction],
    default_schema: str,
    *,
    check_bodies: bool = True,
) -> set[TableKey]:
    """Return the functions that can be created before the tables; each is tried in order, and undone."""
    if not functions:
        return set()
    # For a role without CREATE, the result is empty.
    with suppress(DBAPIError), undone(connection):
        if not auth_functions(connection).settled:
            connection.execute(CreateAuthFunctions())
        for one in functions:
            connection.execute(CreateFunction(one, if_possible=True, check_body=check_bodies))
        asked = _named((one.key for one in functions), default_schema)
        return {one.key for one in _rows(connection, sql_file("named_functions"), default_schema, asked)}
    return set()


def _called_by_tables(
    connection: Connection, functions: Mapping[TableKey, SQLFunction], default_schema: str
) -> set[TableKey]:
    """Return the *functions* that tables call, and the functions that these call.

    A function can't be created while a function that it calls has another name.
    """
    if not functions:
        return set()
    named = _named(functions, default_schema)
    called = {
        one.key for one in _rows(connection, sql_file("functions_called_by_tables"), default_schema, named)
    }
    callers = [*called]
    for caller in callers:  # the list grows
        for key in functions.keys() - called:
            try:
                with undone(connection):
                    connection.execute(HideFunction(key))
                    connection.execute(CreateFunction(functions[caller]))
            except DBAPIError:
                called.add(key)
                callers.append(key)
    return called


def _named(keys: Iterable[TableKey], default_schema: str) -> dict[str, list[str]]:
    listed = list(keys)
    return {
        "function_schemas": schemas_of(listed, default_schema),
        "functions": [key.name for key in listed],
    }


def _rows(
    connection: Connection, query: str, default_schema: str, parameters: dict[str, Any] | None = None
) -> list[SQLFunction]:
    return [function_of(row, default_schema) for row in fetch_rows(connection, query, parameters)]


def function_of(row: RowMapping, default_schema: str) -> SQLFunction:
    """Return the function of a row of functions.sql."""
    values = {name: row[name] for name in SQLFunction.__slots__ if name in row}
    schema = unless_default(row["nspname"], default_schema)
    found = SQLFunction(schema=schema, name=row["proname"], **values)
    return replace(found, settings=tuple(row["settings"]))
