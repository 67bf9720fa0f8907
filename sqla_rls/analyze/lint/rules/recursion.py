"""Policies read their own table, directly or in a circle.

To read a table, Postgres adds its policies to the query, and the policies of each table that these read. It
refuses a table that comes back: "infinite recursion detected in policy" (42P17). Each statement on the
table fails. A function that runs as its owner, such as memberships() declares, reads the table without its
policies.

The rule follows the references of the catalog. The scratch database decides: the finding comes with the
error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.lint.accesses import Access, accesses
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.vocabulary import read_expression
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError

_RECURSION = "42P17"
_NO_PRIVILEGE = "42501"


@rule(
    group="dead-ends",
    level="error",
    failing="""
        CREATE TABLE members (user_id text, org_id int, PRIMARY KEY (user_id, org_id));
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        CREATE POLICY team ON members FOR SELECT TO authenticated USING (
          org_id IN (SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id())));
        GRANT SELECT ON members TO authenticated;
    """,
    clean="""
        CREATE TABLE members (user_id text, org_id int, PRIMARY KEY (user_id, org_id));
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
        GRANT SELECT ON members TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    reads = _reads(database)
    suspects = [
        access
        for access in accesses(database)
        if access.works("SELECT") and _returns(access.table.name, reads) is not None
    ]
    if not suspects:
        return
    with database.scratch() as scratch:
        for access in suspects:
            message = _refused(database, scratch, access)
            if message is None:
                continue
            name, way = access.table.name, _returns(access.table.name, reads) or []
            yield Finding(
                object=name,
                kind="table",
                role=access.role,
                text=f"The policies of {name} read tables in a circle: each statement on {name} fails.",
                evidence=[
                    Evidence(
                        kind="counterexample",
                        text=f"SELECT as {access.role} ends with {_RECURSION}: {message}",
                        data={"sqlstate": _RECURSION, "role": access.role, "tables": way},
                    )
                ],
                remedy=Remedy(
                    text=(
                        f"Break the circle {' → '.join(way)}: read one of the tables in a SECURITY DEFINER "
                        "function."
                    ),
                    python="memberships(…) and member_of(…)",
                ),
            )


def _reads(database: Database) -> Mapping[str, frozenset[str]]:
    """Return the relations that the policies of each table, and the query of each view, read."""
    schema = database.schema
    names = {(one.schema, one.relname): name for name, one in schema.relations.items()}
    found: dict[str, set[str]] = {}
    for name, relation in schema.relations.items():
        if relation.is_view:
            edges = schema.edges.get(name, ())
            found[name] = {edge.reads for edge in edges if edge.part == "query" and edge.reads}
        for policy in relation.policies:
            for sql in (policy.using, policy.check):
                if sql is not None and "SELECT" in sql:
                    # All names are qualified.
                    read = {(one[0], one[-1]) for one in read_expression(sql).relations}
                    found.setdefault(name, set()).update(names[one] for one in read if one in names)
    return {name: frozenset(ones) for name, ones in found.items()}


def _returns(start: str, reads: Mapping[str, frozenset[str]]) -> list[str] | None:
    """Return the shortest way from *start* back to it."""
    ways, visited = [[start]], set[str]()
    for way in ways:  # the list grows
        for name in sorted(reads.get(way[-1], ())):
            if name == start:
                return [*way, name]
            if name not in visited:
                visited.add(name)
                ways.append([*way, name])
    return None


def _refused(database: Database, scratch: Connection, access: Access) -> str | None:
    """Return the message with which Postgres refuses to read the table for recursion."""
    try:
        database.require_complete(access.table.name)
        with undone(scratch):
            scratch.execute(text("SELECT pg_catalog.set_config('role', :role, true)"), {"role": access.role})
            scratch.exec_driver_sql(
                # The name is as Postgres quotes it.
                f"EXPLAIN SELECT * FROM {access.table.name}",  # noqa: S608
                execution_options={"no_parameters": True},
            )
    except AnalysisError as error:
        database.note_unknown(access.table.name, str(error), role=access.role)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        message = str(error.orig).partition("\n")[0]
        if state not in (_RECURSION, _NO_PRIVILEGE):
            database.note_unknown(access.table.name, message, role=access.role)
        return message if state == _RECURSION else None
    return None
