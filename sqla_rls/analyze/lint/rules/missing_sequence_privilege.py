"""A role may insert rows, and not use the sequence of a column default.

`serial` columns and `DEFAULT nextval(…)` run with the privileges of the caller: INSERT ends with
"permission denied for sequence" (42501). Identity columns need no privilege.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.accesses import accesses
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="dead-ends",
    level="warning",
    failing="""
        CREATE TABLE docs (id serial PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    quote = database.connection.dialect.identifier_preparer.quote
    # Without a policy, no insert gets so far.
    inserting = {(one.table.name, one.role) for one in accesses(database) if one.works("INSERT")}
    unprotected = {table.name for table in database.tables if not table.row_security}
    callers = {role.name for role in database.callers}
    for row in database.fetch("sequences_of_defaults"):
        name, role, sequence = row["relation"], row["role"], row["sequence"]
        if role not in callers or ((name, role) not in inserting and name not in unprotected):
            continue
        yield Finding(
            object=sequence,
            kind="sequence",
            column=row["column"],
            role=role,
            command="INSERT",
            text=(
                f"Role {role} may insert rows of {name}, and not use {sequence}, the default of "
                f"{row['column']}."
            ),
            evidence=[
                Evidence(
                    kind="catalog",
                    text=f"{role} holds no USAGE privilege on {sequence}: INSERT ends with 42501",
                    data={"role": role, "privilege": "USAGE", "table": name},
                )
            ],
            remedy=Remedy(
                sql=f"GRANT USAGE ON SEQUENCE {sequence} TO {quote(role)};",
                python="Identity() in place of the sequence; or a policy of sqla_rls, which implies it",
            ),
        )
