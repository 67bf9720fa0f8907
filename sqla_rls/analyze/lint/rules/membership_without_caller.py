"""A policy looks for a membership, and not for the membership of the caller.

`EXISTS (SELECT FROM members m WHERE m.org_id = docs.org_id)` asks whether the organization has a member at
all. Each signed-in caller passes. The subquery must compare the user of the membership with the caller.

Small worlds decide. The policy reads a table whose rows other policies compare with the caller. A caller
without a row in it reaches a row, which other rows of that table hide.

The table that a foreign key of the row refers to is no list of members. A condition on it may state which
rows are public, such as `list_id IN (SELECT id FROM lists WHERE is_public)`. That is an info.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from sqla_rls.analyze.in_place.conditions import Undecidable, find
from sqla_rls.analyze.in_place.splice import parsed
from sqla_rls.analyze.lint.callers import expression_asks
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.vocabulary import Column, Subject, read_expression
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.pools import SUBJECTS
from sqla_rls.analyze.worlds.world import Row

_OTHERS: Final = dict(SUBJECTS.values())
#: The names that a column with the caller has in many schemas.
_NAMES: Final = frozenset({"user_id", "member_id", "account_id", "profile_id", "uid", "userid"})


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
        CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY team ON docs FOR SELECT TO authenticated
          USING (EXISTS (SELECT FROM members AS m WHERE m.org_id = docs.org_id));
        GRANT SELECT ON docs, members TO authenticated;
    """,
    clean="""
        CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
        CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY team ON docs FOR SELECT TO authenticated USING (org_id = ANY (ARRAY(
          SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))));
        GRANT SELECT ON docs, members TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    users = database.cached("columns of callers", lambda: _columns_of_callers(database))
    for reach in Reaches.of(database).all():
        name = reach.relation.name
        for policy in reach.relation.policies:
            sql = policy.using or policy.check
            if not policy.permissive or sql is None or expression_asks(database.schema, sql):
                continue
            memberships = [one for one in _read(database, sql) if not users.isdisjoint(one.columns)]
            if not memberships or name in {one.name for one in memberships}:
                continue
            side = "using" if policy.using is not None else "check"
            key = (reach.original(policy.name), side)
            case = reach.once(
                ("membership-without-caller", key),
                partial(_of_no_member, key=key, memberships=memberships, users=users),
            )
            if case is None:
                continue
            parents = {key.target for key in reach.relation.foreign_keys}
            table = next((one for one in memberships if one.name not in parents), memberships[0])
            column = min(users & table.columns.keys())
            is_parent = table.name in parents
            yield Finding(
                object=name,
                kind="table",
                policy=policy.name,
                role=reach.role,
                level="info" if is_parent else None,
                text=f"Policy {policy.name} on {name} reads {table.name} without the caller.",
                evidence=[
                    reach.evidence(case, f"{{who}} reaches {{row}}, and no row of {table.name} is theirs"),
                    Evidence(kind="catalog", text=f"the policy is {sql}", data={"expression": sql}),
                ],
                remedy=Remedy(
                    sql=f"… WHERE {table.relname}.{column} = (SELECT {database.subject}) AND …",
                    python="member_of(…)",
                    text="If these rows are public, do nothing." if is_parent else None,
                ),
            )


def _columns_of_callers(database: Database) -> frozenset[str]:
    """Return the names of columns that policies and functions compare with the subject."""
    found = set(_NAMES)
    vocabularies = [
        read_expression(sql)
        for relation in database.schema.relations.values()
        for policy in relation.policies
        for sql in (policy.using, policy.check)
        if sql is not None
    ]
    vocabularies += [one.vocabulary for one in database.schema.functions.values() if one.schema != "auth"]
    for vocabulary in vocabularies:
        linked = vocabulary.linked.get(Subject(), ())
        found |= {one.name for one in linked if isinstance(one, Column) and not one.path}
    return frozenset(found)


def _read(database: Database, sql: str) -> Iterator[Relation]:
    """Yield the tables that the subqueries of *sql* read."""
    for schema, name in parsed(sql).relations:
        try:
            yield find(database.schema, schema, name)
        except Undecidable:
            continue


def _of_no_member(
    reach: Reach, key: tuple[str, str], memberships: list[Relation], users: frozenset[str]
) -> Case | None:
    """Return a case that the policy admits, though no row of *memberships* is the caller's."""
    if key not in reach.answers:
        return None
    names = {one.name for one in memberships}
    hidden = {
        (case.place[0], case.row)
        for case in reach.cases(reach.identified)
        if reach.answers[key][case.place[0]][case.place[1]] is False
    }
    for found in reach.cases(reach.identified):
        # A row that is reached beside any other rows doesn't depend on a membership.
        if not reach.is_true(key, found) or (found.place[0], found.row) not in hidden:
            continue
        own = {str(value) for value in (found.actor.claims or {}).values()}
        own |= {*found.actor.settings.values()}
        case = _of_someone_else(reach, found, names, users)
        rows = [row for row in case.world.rows if row.relation in names]
        if rows and not any(str(row.values.get(column)) in own for row in rows for column in users):
            return case
    return None


def _of_someone_else(reach: Reach, case: Case, names: set[str], users: frozenset[str]) -> Case:
    """Return *case* with memberships of another user, as far as no policy reads whose they are."""

    def changed(row: Row) -> Row:
        if row.relation not in names:
            return row
        free = users & row.values.keys() - reach.universe.deciding.get(row.relation, frozenset())
        return replace(
            row,
            values={
                name: _OTHERS.get(str(value), value) if name in free else value
                for name, value in row.values.items()
            },
        )

    world = replace(case.world, rows=tuple(map(changed, case.world.rows)))
    return replace(case, world=world)
