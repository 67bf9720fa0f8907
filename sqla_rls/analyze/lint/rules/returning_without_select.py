"""Callers insert rows, and can't read them: INSERT … RETURNING ends with an error.

An ORM reads the new row: SQLAlchemy writes INSERT … RETURNING for each object with a key of the database's.
Then Postgres applies the policies for SELECT to the new row, and ends with 42501 if they hide it. A founder
who may insert an organization, and read those that they are a member of, is such a caller.

The finding is an info if the role has no SELECT privilege at all, as for a journal that callers only append
to. It is also an info if the policies hide only some of the rows, which small worlds decide.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.accesses import Access, accesses
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Level, Remedy
from sqla_rls.analyze.lint.reach import Reaches
from sqla_rls.analyze.lint.rule import rule

_REMEDY = Remedy(
    text="Let callers read the rows that they insert, or insert without RETURNING.",
    python='crud_policy(…, read=auth_uid("…"))',
)


@rule(
    group="dead-ends",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for access in accesses(database):
        if not access.works("INSERT") or access.works("SELECT"):
            continue
        name, role = access.table.name, access.role
        if access.has_privilege("SELECT"):
            yield _finding(access, f"no policy of {name} is for SELECT and {role}", "warning")
        else:
            yield _finding(access, f"{role} holds no SELECT privilege on {name}", "info")
    yield from _hidden(database)


def _hidden(database: Database) -> Iterator[Finding]:
    """Yield the tables in which the policies for SELECT hide rows that callers insert."""
    works = {
        (one.table.name, one.role)
        for one in accesses(database)
        if one.works("INSERT") and one.works("SELECT")
    }
    for reach in Reaches.of(database).all():
        name, role = reach.relation.name, reach.role
        if (name, role) not in works:
            continue
        case = next(
            (
                one
                for one in reach.cases()
                if reach.is_true("insert", one) and not reach.is_true("select", one)
            ),
            None,
        )
        if case is not None:
            yield Finding(
                object=name,
                kind="table",
                role=role,
                command="INSERT",
                level="info",
                text=f"INSERT … RETURNING on {name} as {role} fails for rows that the role can't read.",
                evidence=[reach.evidence(case, "{who} may insert {row}, and doesn't read it")],
                remedy=_REMEDY,
            )


def _finding(access: Access, fact: str, level: Level) -> Finding:
    name, role = access.table.name, access.role
    return Finding(
        object=name,
        kind="table",
        role=role,
        command="INSERT",
        level=level,
        text=f"INSERT … RETURNING on {name} as {role} ends with an error: the role reads no row.",
        evidence=[Evidence(kind="catalog", text=f"{fact}: RETURNING ends with 42501", data={"role": role})],
        remedy=_REMEDY,
    )
