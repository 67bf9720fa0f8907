"""The default of a column names the caller, and callers may write another name.

A default such as `auth.user_id()` fills the owner in. It binds nobody: INSERT may give the column a value.
If the policy for INSERT doesn't compare the column with the caller, a caller writes rows in the name of
someone else.

Small worlds decide: the finding comes with a row of another owner that a caller inserts.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.callers import expression_asks
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding, Remedy
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL DEFAULT auth.user_id());
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (true);
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL DEFAULT auth.user_id());
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for reach in Reaches.of(database).all():
        name, role = reach.relation.name, reach.role
        inserts = database.profiles[name, role].inserts
        table = database.schema.relations[name]
        for column in table.columns.values():
            if column.name not in inserts or column.default is None or column.generated is not None:
                continue
            if not expression_asks(database.schema, column.default):
                continue
            is_policed = column.name in reach.universe.deciding.get(reach.universe.relation.name, ())
            case = _of_another(reach, column.name, is_policed=is_policed)
            if case is None:
                continue
            yield Finding(
                object=name,
                kind="table",
                column=column.name,
                role=role,
                command="INSERT",
                # No policy reads the column: it may be a note of who wrote the row.
                level="error" if is_policed else "warning",
                text=f"The default of {name}.{column.name} names the caller, and INSERT may name another.",
                evidence=[reach.evidence(case, f"{{who}} inserts {{row}} with another {column.name}")],
                remedy=Remedy(
                    sql=f"ALTER POLICY … ON {name} WITH CHECK ({column.name} = {column.default});",
                    python=f'with_check=auth_uid("{column.name}")',
                    text="Or revoke INSERT on the column: grant it on the other columns only.",
                ),
            )


def _of_another(reach: Reach, column: str, *, is_policed: bool) -> Case | None:
    """Return a case in which the caller inserts a row with the value of someone else in *column*."""
    cases = list(reach.cases(reach.identified))
    if not is_policed:
        return next((one for one in cases if reach.is_true("insert", one)), None)
    for case in cases:
        own = {str(value) for value in (case.actor.claims or {}).values()} | {*case.actor.settings.values()}
        value = case.row.values.get(column)
        if value is not None and str(value) not in own and reach.is_true("insert", case):
            return case
    return None
