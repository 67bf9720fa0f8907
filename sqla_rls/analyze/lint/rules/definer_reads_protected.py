"""A SECURITY DEFINER function that callers may run reads protected tables, and doesn't ask who the caller is.

Row security doesn't hold for the owner of the function, so that the body sees all rows. The result is the
same for each caller. A function that filters by the caller, such as a membership test, isn't found.

A view or a function that the body reads counts, too. It may have another owner, whose rights it has.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.callers import function_asks, past_row_security
from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, body text);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
        CREATE FUNCTION latest_docs() RETURNS SETOF docs LANGUAGE sql STABLE SECURITY DEFINER
          SET search_path = '' AS 'SELECT * FROM public.docs';
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, body text);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
        CREATE FUNCTION latest_docs() RETURNS SETOF docs LANGUAGE sql STABLE SECURITY DEFINER
          SET search_path = '' AS 'SELECT * FROM public.docs WHERE owner_id = auth.user_id()';
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for row in database.fetch("definer_functions"):
        signature = row["signature"]
        roles = [one.name for one in database.callers if database.may_execute(one.name, signature)]
        if not roles or not database.has_schema_of(signature) or function_asks(database.schema, signature):
            continue
        past = past_row_security(database, signature, row["owner"])
        if past is None:
            continue
        read = past.tables
        shows_rows = row["returns_set"] or row["kind"] == "c" or row["returns"] in ("record", "json", "jsonb")
        yield Finding(
            object=signature,
            kind="function",
            level="error" if shows_rows else "warning",
            text=f"Function {signature} reads {listed(read)} past row security, for each caller alike.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=(
                        f"{listed(roles)} may execute it; row security of {listed(read)} doesn't hold for "
                        f"{past.whose}; its body reads no claim"
                    ),
                    data={"roles": roles, "tables": read, "owner": row["owner"], "acts_as": past.roles},
                )
            ],
            remedy=Remedy(
                sql=f"ALTER FUNCTION {signature} SECURITY INVOKER;",
                python="sql_function(…, security_definer=False)",
                text="Or filter by the caller in the body, or revoke EXECUTE from callers and PUBLIC.",
            ),
        )
