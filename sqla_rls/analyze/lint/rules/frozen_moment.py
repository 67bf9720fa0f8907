"""A policy compares with the moment at which it was made.

Postgres evaluates `'now'::timestamptz`, `timestamp 'today'` and the like when it reads the statement: the
policy holds a constant. A row that expires later stays visible for ever. Write `now()` or `current_date`.

A constant with a fraction of a second is such a moment. Times that people write have none.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.vocabulary import Constant, Vocabulary, read_expression


@rule(
    group="dead-ends",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, expires_at timestamptz NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY valid ON docs FOR SELECT TO authenticated
          USING (expires_at > '2026-03-01 12:34:56.789012+00'::timestamptz);
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, expires_at timestamptz NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY valid ON docs FOR SELECT TO authenticated USING (expires_at > now());
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    quote = database.connection.dialect.identifier_preparer.quote
    for table in database.tables:
        for policy in table.policies:
            for clause, sql in (("USING", policy.using), ("WITH CHECK", policy.check)):
                if sql is None:
                    continue
                moments = [one.value for one in _constants(read_expression(sql)) if _is_moment(one)]
                if not moments:
                    continue
                yield Finding(
                    object=table.name,
                    kind="table",
                    policy=policy.name,
                    text=f"Policy {policy.name} compares with {moments[0]}, the moment at which it was made.",
                    evidence=[
                        Evidence(
                            kind="catalog",
                            text=f"{clause} of the policy holds the constant {moments[0]}",
                            data={"constants": moments},
                        )
                    ],
                    remedy=Remedy(
                        sql=f"ALTER POLICY {quote(policy.name)} ON {table.name} {clause} (… now());",
                        python="func.now()",
                    ),
                )


def _constants(vocabulary: Vocabulary) -> set[Constant]:
    return {one for found in vocabulary.constants.values() for one in found} | set(vocabulary.loose)


def _is_moment(constant: Constant) -> bool:
    return constant.kind == "timestamp" and "." in constant.value
