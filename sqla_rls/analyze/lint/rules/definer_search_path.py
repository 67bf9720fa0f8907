"""A SECURITY DEFINER function that callers may run finds its objects by an unsafe search_path.

The function runs with the rights of its owner. Without a search_path of its own, the caller's search_path
decides which tables, functions and operators its body means. A caller who may create objects in one of these
schemas, or temporary tables, runs other code with the rights of the owner. A body in SQL-standard form
(BEGIN ATOMIC, RETURN) is bound when it is created, and so is safe.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="openings",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        CREATE FUNCTION count_docs() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
          AS 'SELECT count(*) FROM docs WHERE owner_id = auth.user_id()';
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        CREATE FUNCTION count_docs() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
          SET search_path = ''
          AS 'SELECT count(*) FROM public.docs WHERE owner_id = auth.user_id()';
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for row in database.fetch("definer_functions"):
        signature = row["signature"]
        roles = [one.name for one in database.callers if database.may_execute(one.name, signature)]
        if row["is_bound"] or not roles or not database.has_schema_of(signature):
            continue
        reason = _reason(database, row["search_path"], signature, roles)
        if reason is None:
            continue
        yield Finding(
            object=signature,
            kind="function",
            text=f"Function {signature} runs as {row['owner']}, and {reason}.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=f"{listed(roles)} may execute it; its search_path is {_shown(row['search_path'])}",
                    data={"roles": roles, "search_path": row["search_path"]},
                )
            ],
            remedy=Remedy(
                sql=f"ALTER FUNCTION {signature} SET search_path = '';",
                python='sql_function(…, search_path=("pg_catalog",))',
                text="Then write the schema of each name in the body.",
            ),
        )


def _reason(database: Database, path: str | None, signature: str, roles: list[str]) -> str | None:
    if path is None:
        return "the caller's search_path finds the objects of its body"
    schemas = [one.strip().strip('"') for one in path.split(",")]
    for schema in schemas:
        if any(database.holds(role, "schema", schema, "CREATE") for role in roles):
            return f"callers may create objects in schema {schema} of its search_path"
    vocabulary = database.schema.functions[signature].vocabulary
    unqualified = sorted(one[0] for one in vocabulary.relations if len(one) == 1)
    if (
        unqualified
        and "pg_temp" not in schemas
        and any(database.holds(role, "database", database.name, "TEMPORARY") for role in roles)
    ):
        return f"a caller's temporary table hides {unqualified[0]}, since pg_temp comes first"
    return None


def _shown(path: str | None) -> str:
    return "that of the caller" if path is None else path
