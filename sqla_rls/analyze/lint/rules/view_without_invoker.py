"""A view without security_invoker shows rows that the policies of its tables hide.

A view reads its tables with the rights of its owner, who is often the owner of the tables too: row security
doesn't hold. For another owner, row security holds by the policies of that role, which may admit more rows
than those of the callers. With security_invoker (PostgreSQL 15), the policies hold for the caller.

Small worlds decide: rows are inserted in the scratch database, and the same caller reads the view as it is,
and with security_invoker. A view that filters by the caller itself shows the same rows, and isn't found. The
finding is a warning if callers have no privilege on the tables: then the view may be what they are meant to
see.

INSERT, UPDATE and DELETE through the view have the rights of the owner, too. The rule tries them in the
same worlds. A view that filters by the caller checks new rows only with WITH CHECK OPTION. INSERT … ON
CONFLICT DO UPDATE changes rows that the filter hides, too: a caller with SELECT, INSERT and UPDATE can take
them over. MERGE changes no row that UPDATE and DELETE don't.

An INSTEAD OF trigger writes with the rights of its function. The function, or one that it calls, may be
SECURITY DEFINER. Then the rule counts the changed rows of the view's table, also with the caller's rights.
So a trigger that makes the caller the owner isn't found, and one that only asks who the caller is may be. A
trigger is unknown if no statement changes a row, or if the rows of the view are those of several tables.
This holds for views with security_invoker, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.lint.callers import distinct_callers, first_actors, past_row_security, view_asks
from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import LEVELS, Evidence, Finding, Level, Remedy
from sqla_rls.analyze.lint.other_policies import OtherPolicies, Undecided, other_policies
from sqla_rls.analyze.lint.reach import Reaches
from sqla_rls.analyze.lint.reach.in_scratch import fill
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.lint.view_triggers import writes_by_triggers
from sqla_rls.analyze.lint.view_writes import writes_past_policies
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.why.explanation import WRITES
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
        GRANT SELECT ON docs TO authenticated;
        GRANT SELECT, INSERT ON all_docs TO authenticated;
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
        if view.kind != "v" or (view.is_invoker and not writes_by_triggers(database, view)):
            continue
        found = [*(() if view.is_invoker else _shows(database, view)), *_writes(database, view)]
        if found:
            yield _finding(view, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Commands that reach rows past the policies of the callers."""

    commands: Sequence[str]
    role: str
    level: Level
    tables: Sequence[str]
    roles: Sequence[str]
    acts_as: Sequence[str]
    reason: str
    evidence: Sequence[Evidence]
    #: The functions of triggers that write with other rights.
    functions: Sequence[str] = ()


def _finding(view: Relation, found: Sequence[_Found]) -> Finding:
    worst = min(found, key=lambda one: LEVELS.index(one.level))
    tables = sorted({table for one in found for table in one.tables})
    shows = any("SELECT" in one.commands for one in found)
    writes = any("SELECT" not in one.commands for one in found)
    text = f"View {view.name} "
    if shows:
        text += f"shows rows of {listed(tables)} that row security hides from its callers"
    if writes:
        text += (
            ", and lets them write such rows"
            if shows
            else (f"lets its callers write rows of {listed(tables)} that row security denies them")
        )
    catalog = [
        Evidence(
            kind="catalog",
            text=(
                f"{listed(one.roles)} may {', '.join(one.commands)}; "
                f"{'' if view.is_invoker else 'the view has no security_invoker; '}{one.reason}"
            ),
            data={"roles": one.roles, "tables": one.tables, "owner": view.owner, "acts_as": one.acts_as},
        )
        for one in found
    ]
    return Finding(
        object=view.name,
        kind="view",
        role=worst.role,
        level=worst.level,
        text=f"{text}.",
        evidence=[*(evidence for one in found for evidence in one.evidence), *catalog],
        remedy=Remedy(
            sql=" ".join(
                [
                    *(
                        [f"ALTER VIEW {view.name} SET (security_invoker = true);"]
                        if not view.is_invoker
                        else []
                    ),
                    *(f"ALTER FUNCTION {name} SECURITY INVOKER;" for one in found for name in one.functions),
                ]
            ),
            python="sql_function(…, security_definer=False)"
            if view.is_invoker
            else "view(…, security_invoker=True)",
        ),
    )


def _shows(database: Database, view: Relation) -> Iterator[_Found]:
    """Yield what the view shows past the policies of its callers."""
    roles = database.roles_with_privileges(view.name, "SELECT")
    past = past_row_security(database, view.name, view.owner)
    if not roles:
        return
    others = _others(database, view, roles) if past is None else []
    if past is not None:
        suspect = _Suspect(
            roles,
            past.tables,
            past.roles,
            f"row security of {listed(past.tables)} doesn't hold for {past.whose}",
        )
    elif others:
        suspect = _suspect(others)
    else:
        return
    found = _found(database, view, suspect)
    if found is not None:
        role, level, evidence = found
        yield _Found(
            commands=["SELECT"],
            role=role,
            level=level,
            tables=suspect.tables,
            roles=suspect.roles,
            acts_as=suspect.acts_as,
            reason=suspect.reason,
            evidence=evidence,
        )


def _writes(database: Database, view: Relation) -> Iterator[_Found]:
    """Yield what callers write through the view past their policies."""
    try:
        found = writes_past_policies(database, view)
    except (AnalysisError, DBAPIError) as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        role = database.roles_with_privileges(view.name, *WRITES)[0]
        database.note_unknown(view.name, reason, kind="view", role=role)
        return
    if found is None:
        return
    commands = [one.command for one in found.found]
    worst = min(found.found, key=lambda one: LEVELS.index(one.level))
    yield _Found(
        commands=commands,
        role=worst.role,
        level=worst.level,
        tables=[found.table.name],
        roles=found.roles,
        acts_as=found.acts_as,
        reason=f"it writes {found.table.name} with the rights of {listed(found.acts_as)}",
        evidence=[one.evidence for one in found.found],
        functions=found.functions,
    )


@dataclass(frozen=True, slots=True)
class _Suspect:
    """The callers to whom a view may show more rows than their policies admit, and why."""

    roles: Sequence[str]
    tables: Sequence[str]
    acts_as: Sequence[str]
    reason: str
    #: Callers for whom the policies differ.
    actors: Sequence[Actor] = ()


def _others(database: Database, view: Relation, roles: Sequence[str]) -> list[OtherPolicies]:
    """Return the callers to whom policies of other roles admit more rows."""
    found: list[OtherPolicies] = []
    for role in roles:
        one = other_policies(database, view.name, role)
        if isinstance(one, Undecided):
            database.note_unknown(view.name, one.reason, kind="view", role=role)
        elif one is not None:
            found.append(one)
    return found


def _suspect(others: Sequence[OtherPolicies]) -> _Suspect:
    tables = sorted({table for one in others for table in one.tables})
    readers = sorted({reader for one in others for reader in one.readers})
    return _Suspect(
        [one.role for one in others],
        tables,
        readers,
        f"it has the rights of {listed(readers)}, to whom other policies of {listed(tables)} apply",
        [one.actor for one in others],
    )


def _found(database: Database, view: Relation, suspect: _Suspect) -> tuple[str, Level, list[Evidence]] | None:
    """Return a role, the level and a counterexample; None if the view hides what the policies hide."""
    readers = {role for one in suspect.tables for role in database.roles_with_privileges(one, "SELECT")}
    groups: list[tuple[Level, list[str]]] = [
        ("error", [one for one in suspect.roles if one in readers]),
        ("warning", [one for one in suspect.roles if one not in readers]),
    ]
    try:
        with database.scratch() as connection:
            database.require_complete(view.name)
            for level, roles in groups:
                evidence = _shown(database, connection, view, suspect, roles)
                if evidence is not None:
                    return evidence.data["role"], level, [evidence]
    except (AnalysisError, DBAPIError) as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        if view_asks(database.schema, view):
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            database.note_unknown(view.name, reason, kind="view", role=suspect.roles[0])
            return None
        return suspect.roles[0], "warning", []
    return None


def _shown(
    database: Database, connection: Connection, view: Relation, suspect: _Suspect, roles: Sequence[str]
) -> Evidence | None:
    """Return a world in which the view shows a caller more than it does with security_invoker."""
    if not roles:
        return None
    universe = Reaches.of(database).worlds.universe(view, connection, database.schema)
    distinct = distinct_callers(database, view, roles)
    chosen = [actor for role in distinct for actor in first_actors(database, universe, role)]
    chosen += [actor for actor in suspect.actors if actor.role in distinct and actor not in chosen]
    refusal: DBAPIError | None = None
    is_tried = False
    for world in generate_worlds(universe, _BUDGET):
        if not world.all_rows:
            continue
        try:
            with undone(connection):
                fill(database.schema, connection, world)
                for actor in chosen:
                    if _count(connection, view, actor) > _count(connection, view, actor, is_invoker=True):
                        return _evidence(universe, world, actor, view)
            is_tried = True
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            refusal = refusal or error
    if refusal is not None and not is_tried:
        # No world has an answer, so the view isn't known to hide anything.
        raise refusal
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
