"""A SECURITY DEFINER function that callers may run finds its objects by an unsafe search_path.

The function runs with the rights of its owner. Without a search_path of its own, the caller's search_path
decides which tables, functions and operators its body means. A caller who may create objects in one of these
schemas, or temporary tables, runs other code with the rights of the owner. A body in SQL-standard form
(BEGIN ATOMIC, RETURN) is bound when it is created, and so is safe.

A trigger runs its function without EXECUTE. So callers run a trigger function if they may write the table of
its trigger. They may write it through a view, a rule, a parent or a foreign key with an action. They also
run it if they may execute it and create a trigger. An event trigger runs its function for each role.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import RowMapping

from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.lint.triggers import triggers_by_function, way_in_words, writers


@rule(
    group="openings",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        CREATE FUNCTION count_docs() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
          AS 'SELECT count(*) FROM docs WHERE owner_id = auth.user_id()';
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        CREATE FUNCTION count_docs() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
          SET search_path = ''
          AS 'SELECT count(*) FROM public.docs WHERE owner_id = auth.user_id()';
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for row in database.fetch("definer_functions"):
        roles = [one.name for one in database.callers if database.may_execute(one.name, row["signature"])]
        if not row["is_bound"] and roles:
            yield from _findings(database, row, roles, f"{listed(roles)} may execute it", {})
    for _, rows in triggers_by_function(database):
        fired = _fired(database, rows)
        if fired is not None:
            yield from _findings(database, rows[0], fired.roles, fired.text, fired.data)


def _findings(
    database: Database, row: RowMapping, roles: list[str], way: str, data: Mapping[str, Any]
) -> Iterator[Finding]:
    signature, path = row["signature"], row["search_path"]
    if not database.has_schema_of(signature):
        return
    reason = _reason(database, path, signature, roles)
    if reason is None:
        return
    yield Finding(
        object=signature,
        kind="function",
        text=f"Function {signature} runs as {row['owner']}, and {reason}.",
        evidence=[
            Evidence(
                kind="catalog",
                text=f"{way}; its search_path is {_shown(path)}",
                data={"roles": roles, "search_path": path, **data},
            )
        ],
        remedy=Remedy(
            sql=f"ALTER FUNCTION {signature} SET search_path = '';",
            python='sql_function(…, search_path=("pg_catalog",))',
            text="Then write the schema of each name in the body.",
        ),
    )


@dataclass(frozen=True, slots=True)
class _Fired:
    """The callers that run a trigger function, and the first way, in words and as values."""

    roles: list[str]
    text: str
    data: Mapping[str, Any]


def _fired(database: Database, rows: Sequence[RowMapping]) -> _Fired | None:
    """Return how callers run the trigger function of *rows*; Postgres asks for no EXECUTE then."""
    first, callers = rows[0], [one.name for one in database.callers]
    if first["event_trigger"] is not None:
        text = f"event trigger {first['event_trigger']} calls it for commands of each role"
        return _Fired(callers, text, {"event_trigger": first["event_trigger"]}) if callers else None
    ways: list[_Fired] = []
    for row in rows:
        for command in row["commands"]:
            if row["relation"] is not None and (roles := writers(database, row["relation"], command)):
                ways.append(_Fired(roles, way_in_words(row, command, roles), _data(row, command)))
    makers = [one for one in callers if first["is_of_tables"] and _may_make_trigger(database, one, first)]
    if makers:
        ways.append(
            _Fired(makers, f"{listed(makers)} may execute it, and create a trigger that calls it", {})
        )
    if not ways:
        return None
    found = {role for one in ways for role in one.roles}
    return replace(ways[0], roles=[one for one in callers if one in found])


def _data(row: RowMapping, command: str) -> Mapping[str, Any]:
    names = ("trigger", "table", "relation")
    return {**{name: row[name] for name in names}, "command": command}


def _may_make_trigger(database: Database, role: str, row: RowMapping) -> bool:
    """Return whether *role* may create a trigger with the function: on its own table, or on another's."""
    signature, rights = row["signature"], database.rights_of(role)
    return (
        signature in database.schema.functions
        and database.may_execute(role, signature)
        and any(
            one.privilege in ("CREATE", "TEMPORARY", "TRIGGER")
            and one.kind in ("database", "schema", "relation")
            and one.grantee in rights
            for one in database.grants
        )
    )


def _reason(database: Database, path: str | None, signature: str, roles: list[str]) -> str | None:
    if path is None:
        return "the caller's search_path finds the objects of its body"
    schemas = [one.strip().strip('"') for one in path.split(",")]
    for schema in schemas:
        if any(database.holds(role, "schema", schema, "CREATE") for role in roles):
            return f"callers may create objects in schema {schema} of its search_path"
    vocabulary = database.schema.functions[signature].vocabulary
    unqualified = sorted(one[0] for one in vocabulary.relations if len(one) == 1)
    if (
        unqualified
        and "pg_temp" not in schemas
        and any(database.holds(role, "database", database.name, "TEMPORARY") for role in roles)
    ):
        return f"a caller's temporary table hides {unqualified[0]}, since pg_temp comes first"
    return None


def _shown(path: str | None) -> str:
    return "that of the caller" if path is None else path
