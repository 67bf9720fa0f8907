"""A policy calls a function that says IMMUTABLE, and whose result depends on the caller.

Postgres evaluates an IMMUTABLE function while it plans, and keeps the result in the plan. A prepared
statement on a pooled connection then shows the rows of the caller who ran it first to the next one. A
function that reads a setting, a claim or a table is STABLE.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.worlds.objects import Function
from sqla_rls.analyze.worlds.schema import Schema

_OF_SESSION = frozenset({"current_setting", "current_user", "session_user", "now", "clock_timestamp"})


@rule(
    group="dead-ends",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE FUNCTION me() RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN auth.user_id(); END';
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT me()));
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE FUNCTION me() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN auth.user_id(); END';
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT me()));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    rows = database.fetch("volatility")
    immutable = {row["signature"] for row in rows if row["volatility"] == "i"}
    if not immutable:
        return
    changing = {(row["schema"], row["name"]) for row in rows if row["volatility"] != "i"}
    names = {name for _, name in changing} | _OF_SESSION
    users: dict[str, list[str]] = {}
    for table in database.tables:
        for signature in _called_by_policies(database.schema, table.name) & immutable:
            users.setdefault(signature, []).append(table.name)
    for signature, tables in sorted(users.items()):
        function = database.schema.functions[signature]
        reason = _reason(function, names)
        if reason is None:
            continue
        yield Finding(
            object=signature,
            kind="function",
            text=f"{signature} says IMMUTABLE and {reason}: a plan keeps the result of the first caller.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=(
                        f"pg_proc.provolatile is i, and the body {reason}; policies of {', '.join(tables)} "
                        "call it"
                    ),
                    data={"tables": tables},
                )
            ],
            remedy=Remedy(
                sql=f"ALTER FUNCTION {signature} STABLE;", python='sql_function(…, volatility="STABLE")'
            ),
        )


def _called_by_policies(schema: Schema, table: str) -> set[str]:
    """Return the functions that the policies of *table* call, and those that these call."""
    found = set[str]()
    waiting = [edge.calls for edge in schema.edges.get(table, ()) if edge.part == "policy"]
    while waiting:
        signature = waiting.pop()
        if signature is not None and signature not in found:
            found.add(signature)
            waiting += [edge.calls for edge in schema.edges.get(signature, ())]
    return found


def _reason(function: Function, names: set[str]) -> str | None:
    words = function.vocabulary
    if words.settings or words.claims:
        return "reads a setting"
    called = sorted({".".join(one) for one in words.functions if one[-1] in names})
    if called:
        return f"calls {called[0]}"
    relations = sorted({".".join(one) for one in words.relations})
    return f"reads {relations[0]}" if relations else None
