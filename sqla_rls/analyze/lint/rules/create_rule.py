"""A rule of CREATE RULE reads or changes a protected table for callers, with the rights of an owner.

The actions of a rule run with the rights of the owner of its table or view. Row security of other tables
doesn't hold there, unless it is forced. `ON INSERT TO inbox DO INSTEAD SELECT * FROM docs` shows each row of
docs to a caller who may insert into inbox.

A rule that inserts values only, such as an audit, is an info. Replace the others by a trigger whose function
runs with the rights of the caller.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.worlds.rewrite_rules import read_rules, tables_past_policies


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE TABLE inbox (id int PRIMARY KEY);
        ALTER TABLE inbox ENABLE ROW LEVEL SECURITY;
        CREATE POLICY add ON inbox FOR INSERT TO authenticated WITH CHECK ((SELECT auth.user_id()) <> '');
        CREATE RULE show AS ON INSERT TO inbox DO INSTEAD SELECT * FROM docs;
        GRANT SELECT ON docs TO authenticated;
        GRANT INSERT ON inbox TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE TABLE changes (doc int, at timestamptz NOT NULL);
        ALTER TABLE changes ENABLE ROW LEVEL SECURITY;
        CREATE RULE audit AS ON UPDATE TO docs DO ALSO INSERT INTO changes VALUES (new.id, now());
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for one in read_rules(database.connection, database.schema):
        relation = one.relation
        if database.schemas and relation.schema not in database.schemas:
            continue
        reached = {
            name: role
            for name, role in tables_past_policies(database.schema, one)
            if database.schema.relations[name].row_security
            and database.escapes(role, database.schema.relations[name])
        }
        roles = database.roles_with_privileges(relation.name, one.command)
        if not reached or not roles:
            continue
        does = "inserts into" if one.only_inserts else "reads or changes"
        yield Finding(
            object=relation.name,
            kind="view" if relation.is_view else "table",
            role=roles[0],
            command=one.command,
            level="info" if one.only_inserts else None,
            text=f"Rule {one.name} on {relation.name} {does} {listed(sorted(reached))} past its policies.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=(
                        f"{listed(roles)} may {one.command}; row security doesn't hold for "
                        f"{listed(sorted({*reached.values()}))}: {one.definition}"
                    ),
                    data={"roles": roles, "tables": sorted(reached), "definition": one.definition},
                )
            ],
            remedy=Remedy(
                sql=f"DROP RULE {one.name} ON {relation.name};",
                text="Use a trigger whose function runs with the caller's rights, or force row security.",
            ),
        )
