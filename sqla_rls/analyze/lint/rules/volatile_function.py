"""A policy calls a volatile function, so that no index can be used.

A function is volatile if its definition doesn't say otherwise. Postgres calls it for each row, also
where its result can't change. Declare a function STABLE if it only reads. The rule tries that with
real statements in small worlds.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.lint.speed import slow

_TABLE = """
        CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL);
        CREATE INDEX docs_owner ON docs (owner);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner = me());
        GRANT SELECT ON docs TO authenticated;
"""


@rule(
    group="speed",
    level="warning",
    failing=f"""
        CREATE FUNCTION me() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN auth.user_id(); END';
{_TABLE}
    """,
    clean=f"""
        CREATE FUNCTION me() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN auth.user_id(); END';
{_TABLE}
    """,
)
def check(database: Database) -> Iterator[Finding]:
    yield from slow(
        database, "volatile_function", "The policies of {object} call a volatile function for each row."
    )
