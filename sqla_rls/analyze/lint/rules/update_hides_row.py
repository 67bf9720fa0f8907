"""An UPDATE that its policy permits fails, since the policies for SELECT hide the new row from all callers.

`UPDATE … WHERE` and `UPDATE … RETURNING` read the table. Postgres then applies the policies for SELECT to
the new row, too, and ends with "new row violates row-level security policy" (42501). A soft delete is such
a change: it sets deleted_at, and the policy for SELECT asks for deleted_at IS NULL. Let callers read their
deleted rows and filter in the query, or delete in a function that runs as its owner.

Small worlds decide: the finding comes with a row before and after the change.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="dead-ends",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, deleted_at timestamptz);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated
          USING (owner_id = (SELECT auth.user_id()) AND deleted_at IS NULL);
        CREATE POLICY edit ON docs FOR UPDATE TO authenticated
          USING (owner_id = (SELECT auth.user_id())) WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, UPDATE ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, deleted_at timestamptz);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY edit ON docs FOR UPDATE TO authenticated
          USING (owner_id = (SELECT auth.user_id())) WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, UPDATE ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for reach in Reaches.of(database).all():
        name, role = reach.relation.name, reach.role
        profile = database.profiles[name, role]
        if not profile.updates or not profile.selects:
            continue
        updates = frozenset(reach.universe.relation.columns.keys() & set(profile.updates))
        found = reach.once(("update-hides-row", updates), partial(_hidden, updates=updates))
        if found is None:
            continue
        before, after = found
        columns = sorted(_changed(before, after))
        evidence = reach.evidence(
            before, f"{{who}} changes {{row}} to {reach.words(after.row)}, and reads it no more"
        )
        yield Finding(
            object=name,
            kind="table",
            role=role,
            command="UPDATE",
            column=columns[0],
            text=(
                f"UPDATE of {', '.join(columns)} in {name} as {role} fails: the policies for SELECT hide the "
                "new row."
            ),
            evidence=[
                Evidence(
                    kind=evidence.kind,
                    text=evidence.text,
                    data={**evidence.data, "new_row": dict(after.row.values), "sqlstate": "42501"},
                )
            ],
            remedy=Remedy(
                text="Let the policy for SELECT admit the new row, or update in a SECURITY DEFINER function.",
                python='crud_policy(…, read=auth_uid("…"), modify=auth_uid("…"))',
            ),
        )


def _hidden(reach: Reach, updates: frozenset[str]) -> tuple[Case, Case] | None:
    """Return a row before and after a change that UPDATE permits, and that no policy for SELECT shows."""
    olds: dict[tuple[int, int], list[Case]] = {}
    cases = list(reach.cases())
    # A row that another caller reads is given away: other rules are about that.
    read = {case.place[1] for case in cases if reach.is_true("select", case)}
    news = [case for case in cases if case.place[1] not in read and reach.is_true("update_check", case)]
    if not news:
        return None
    for case in cases:
        if reach.is_true("update", case) and reach.is_true("select", case):
            olds.setdefault((case.place[0], len(case.world.rows)), []).append(case)
    pairs = [
        (old, new)
        for new in news
        for old in olds.get((new.place[0], len(new.world.rows)), ())
        if _changed(old, new) <= updates and reach.same_row(old, new)
    ]
    return min(pairs, key=lambda pair: len(_changed(*pair)), default=None)


def _changed(before: Case, after: Case) -> frozenset[str]:
    old, new = before.row.values, after.row.values
    return frozenset(name for name in new if old.get(name) != new[name])
