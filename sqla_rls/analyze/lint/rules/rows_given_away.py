"""A caller can change a row so that it belongs to someone else.

The policies for UPDATE check the row before by USING, and the row after by WITH CHECK. If WITH CHECK admits
a row that USING rejects, a caller can hand a row over to the account or the tenant of someone else. The
caller can't take it back. WITH CHECK of one policy may admit it, or that of another: Postgres needs one of
each.

Small worlds decide: the finding comes with the row before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="openings",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY edit ON docs FOR UPDATE TO authenticated
          USING (owner_id = (SELECT auth.user_id())) WITH CHECK (true);
        GRANT SELECT, UPDATE ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY edit ON docs FOR UPDATE TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, UPDATE ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for reach in Reaches.of(database).all():
        name, role = reach.relation.name, reach.role
        updates = database.profiles[name, role].updates
        found = reach.once("rows-given-away", _given_away) if updates else None
        if found is None:
            continue
        old, new, column = found
        if column not in updates:
            continue
        after = replace(old.row, values={**old.row.values, column: new.row.values[column]})
        example = reach.evidence(old, f"{{who}} changes {{row}} to {reach.words(after)}")
        yield Finding(
            object=name,
            kind="table",
            policy=_admitting(reach, new),
            column=column,
            role=role,
            command="UPDATE",
            text=f"Callers of role {role} can give rows of {name} away by changing {column}.",
            evidence=[
                Evidence(kind=example.kind, text=example.text, data={**example.data, "after": after.values})
            ],
            remedy=Remedy(
                sql=f"ALTER POLICY … ON {name} WITH CHECK (…);",
                python="without with_check, the new row must satisfy using=, too",
                text="Make WITH CHECK as narrow as USING, or revoke UPDATE on the column.",
            ),
        )


def _given_away(reach: Reach) -> tuple[Case, Case, str] | None:
    """Return the cases before and after, and the column that changes."""
    if all(
        policy.check is None
        for policy in reach.relation.policies
        if policy.permissive and policy.command in ("ALL", "UPDATE")
    ):
        return None
    by_world: dict[object, list[Case]] = {}
    for case in reach.cases(reach.identified):
        by_world.setdefault((case.place[0], case.world.rows), []).append(case)
    for cases in by_world.values():
        before = [one for one in cases if reach.is_true("update", one) and reach.is_true("select", one)]
        after = [
            one for one in cases if reach.is_true("update_check", one) and not reach.is_true("update", one)
        ]
        for old in before:
            for new in after:
                changed = [
                    name
                    for name, value in new.row.values.items()
                    if old.row.values.get(name) != value and not _is_key(reach, name)
                ]
                if len(changed) == 1:
                    return old, new, changed[0]
    return None


def _is_key(reach: Reach, column: str) -> bool:
    """Return whether the worlds number the rows by this column."""
    deciding = reach.universe.deciding.get(reach.universe.relation.name, frozenset())
    return column in reach.relation.keys[0] and column not in deciding if reach.relation.keys else False


def _admitting(reach: Reach, new: Case) -> str | None:
    for policy in reach.relation.policies:
        key = (policy.name, "check")
        is_for_updates = policy.permissive and policy.command in ("ALL", "UPDATE")
        if is_for_updates and key in reach.answers and reach.is_true(key, new):
            return policy.name
    return None
