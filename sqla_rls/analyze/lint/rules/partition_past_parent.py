"""Callers reach a partition or a child table past the row security of its parent.

Postgres applies the policies of the table that a statement names. A statement that names the partition
itself doesn't meet the policies of the parent. It meets the row security of the partition, which is off, or
whose policies show each row.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.reach import Reaches
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.worlds.objects import Relation


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int, owner_id text NOT NULL) PARTITION BY RANGE (id);
        CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (1) TO (1000);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs, docs_1 TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int, owner_id text NOT NULL) PARTITION BY RANGE (id);
        CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (1) TO (1000);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    relations = database.schema.relations
    for parent in database.tables:
        if not parent.row_security:
            continue
        waiting = list(parent.children)
        while waiting:
            child = relations.get(waiting.pop())
            if child is None:
                continue
            waiting += child.children
            roles = database.roles_with_privileges(child.name)
            if child.row_security:
                yield from _wider(database, parent, child)
                continue
            if not roles:
                continue
            yield Finding(
                object=child.name,
                kind="table",
                text=f"Callers reach the rows of {child.name} past the policies of its parent {parent.name}.",
                evidence=[
                    Evidence(
                        kind="catalog",
                        text=(
                            f"{listed(roles)} hold privileges on {child.name}, whose "
                            "pg_class.relrowsecurity is false"
                        ),
                        data={"parent": parent.name, "relrowsecurity": False, "roles": roles},
                    )
                ],
                remedy=Remedy(
                    sql=(
                        f"REVOKE ALL ON {child.name} FROM {', '.join(map(database.quoted_role, roles))}; "
                        f"ALTER TABLE {child.name} ENABLE ROW LEVEL SECURITY;"
                    ),
                    text="Statements that name the parent need no privilege on its partitions.",
                ),
            )


def _wider(database: Database, parent: Relation, child: Relation) -> Iterator[Finding]:
    """Yield the roles that read each row of *child*, and not each row of *parent*."""
    reaches = Reaches.of(database)
    for role in database.roles_with_privileges(child.name, "SELECT"):
        if not database.is_active(child.name, role) or not database.is_active(parent.name, role):
            continue
        inner, outer = reaches.of_table(child.name, role), reaches.of_table(parent.name, role)
        if inner is None or outer is None:
            continue
        cases = list(inner.cases())
        is_wider = all(inner.is_true("select", case) for case in cases) and not all(
            outer.is_true("select", case) for case in outer.cases()
        )
        if cases and is_wider:
            yield Finding(
                object=child.name,
                kind="table",
                role=role,
                command="SELECT",
                text=f"Callers read each row of {child.name} past the policies of its parent {parent.name}.",
                evidence=[inner.evidence(cases[-1], "{who} reads {row}")],
                remedy=Remedy(
                    sql=f"REVOKE ALL ON {child.name} FROM {database.quoted_role(role)};",
                    text="Statements that name the parent need no privilege on its partitions.",
                ),
            )
