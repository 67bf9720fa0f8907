"""A view without security_invoker shows rows that the policies of its tables hide.

A view reads its tables with the rights of its owner, who is often the owner of the tables too: row security
doesn't hold. With security_invoker (PostgreSQL 15), the policies hold for the caller.

Small worlds decide: rows are inserted in the scratch database, and the same caller reads the view as it is,
and with security_invoker. A view that filters by the caller itself shows the same rows, and isn't found. The
finding is a warning if callers have no privilege on the tables: then the view may be what they are meant to
see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.lint.callers import past_row_security, view_asks
from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Level, Remedy
from sqla_rls.analyze.lint.reach import Reaches
from sqla_rls.analyze.lint.reach.in_scratch import fill
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds.counterexamples import row_in_words
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import World
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError

_BUDGET: Final = Budget(worlds=40, rows=2)


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE VIEW all_docs AS SELECT * FROM docs;
        GRANT SELECT ON docs, all_docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE VIEW all_docs WITH (security_invoker) AS SELECT * FROM docs;
        CREATE VIEW own_docs AS SELECT * FROM docs WHERE owner_id = auth.user_id();
        GRANT SELECT ON docs, all_docs, own_docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for view in database.relations:
        if view.kind != "v" or view.is_invoker:
            continue
        roles = database.roles_with_privileges(view.name, "SELECT")
        past = past_row_security(database, view.name, view.owner)
        if not roles or past is None:
            continue
        read = past.tables
        found = _found(database, view, roles[0], read)
        if found is None:
            continue
        level, evidence = found
        yield Finding(
            object=view.name,
            kind="view",
            role=roles[0],
            level=level,
            text=f"View {view.name} shows rows of {listed(read)} that row security hides from its callers.",
            evidence=[
                *evidence,
                Evidence(
                    kind="catalog",
                    text=(
                        f"{listed(roles)} may SELECT; the view has no security_invoker; row security of "
                        f"{listed(read)} doesn't hold for {past.whose}"
                    ),
                    data={"roles": roles, "tables": read, "owner": view.owner, "acts_as": past.roles},
                ),
            ],
            remedy=Remedy(
                sql=f"ALTER VIEW {view.name} SET (security_invoker = true);",
                python="view(…, security_invoker=True)",
            ),
        )


def _found(
    database: Database, view: Relation, role: str, read: Sequence[str]
) -> tuple[Level, list[Evidence]] | None:
    """Return the level and a counterexample; None if the view hides what the policies hide."""
    readable = [one for one in read if role in database.roles_with_privileges(one, "SELECT")]
    level: Level = "error" if readable else "warning"
    try:
        with database.scratch() as connection:
            database.require_complete(view.name)
            evidence = _shown(database, connection, view, role)
    except (AnalysisError, DBAPIError) as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        if view_asks(database.schema, view):
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            database.note_unknown(view.name, reason, kind="view", role=role)
            return None
        return "warning", []
    return None if evidence is None else (level, [evidence])


def _shown(database: Database, connection: Connection, view: Relation, role: str) -> Evidence | None:
    """Return a world in which the view shows a caller more than it does with security_invoker."""
    universe = Reaches.of(database).worlds.universe(view, connection, database.schema)
    actors = universe.pools.actors([role])
    chosen = [one for one in actors if one.claims and "sub" in one.claims][:2] or actors[:2]
    if database.is_anonymous(role):
        chosen = actors[:1]
    for world in generate_worlds(universe, _BUDGET):
        if not world.all_rows:
            continue
        try:
            with undone(connection):
                fill(database.schema, connection, world)
                for actor in chosen:
                    if _count(connection, view, actor) > _count(connection, view, actor, is_invoker=True):
                        return _evidence(universe, world, actor, view)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
    return None


def _count(connection: Connection, view: Relation, actor: Actor, *, is_invoker: bool = False) -> int:
    """Return the number of rows that *actor* reads in *view*; 0 if it may not."""
    claims = "" if actor.claims is None else json.dumps(actor.claims)
    try:
        with undone(connection):
            if is_invoker:
                connection.exec_driver_sql(f"ALTER VIEW {view.name} SET (security_invoker = true)")
            for name, value in {
                "request.jwt.claims": claims,
                **actor.settings,
                "role": actor.role,
            }.items():
                connection.execute(
                    text("SELECT pg_catalog.set_config(:name, :value, true)"), {"name": name, "value": value}
                )
            # The name is as the catalog quotes it.
            counted = connection.exec_driver_sql(f"SELECT pg_catalog.count(*) FROM {view.name}")  # noqa: S608
            return int(counted.scalar_one())
    except DBAPIError as error:
        if error.connection_invalidated or not str(getattr(error.orig, "sqlstate", "")).startswith("42501"):
            raise
        return 0


def _evidence(universe: Universe, world: World, actor: Actor, view: Relation) -> Evidence:
    words = ", ".join(row_in_words(universe, row) for row in world.all_rows)
    return Evidence(
        kind="counterexample",
        text=f"{actor.text} reads more rows of {view.name} than with security_invoker, with {words}",
        data={
            "role": actor.role,
            "claims": actor.claims,
            "settings": dict(actor.settings),
            "rows": world.values_by_relation,
        },
    )
