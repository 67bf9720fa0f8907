"""A policy believes a claim that users write themselves.

Some identity providers copy metadata into the token that the user may change: `user_metadata` of Supabase,
`unsafe_metadata` of Clerk. The claim may be in a namespace, such as `https://example.com/user_metadata` of
Auth0. A caller who writes `{"role": "admin"}` there is an admin to the policy. Read a claim that only your
backend writes, such as `app_metadata`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.vocabulary import Vocabulary, read_expression

#: The claims, and the parts of claims, that users change themselves: those of Supabase, Clerk, Auth0,
#: FusionAuth, Stytch and Stack Auth, in lower case, and without underscores.
WRITABLE: Final = frozenset(
    {"usermetadata", "rawusermetadata", "unsafemetadata", "untrustedmetadata", "clientmetadata"}
)


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY admins ON docs FOR SELECT TO authenticated
          USING ((SELECT auth.jwt()) -> 'user_metadata' ->> 'role' = 'admin');
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY admins ON docs FOR SELECT TO authenticated
          USING ((SELECT auth.jwt()) -> 'app_metadata' ->> 'role' = 'admin');
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for table in database.tables:
        for policy in table.policies:
            claim = next(
                (found for sql in (policy.using, policy.check) if sql and (found := _claim(database, sql))),
                None,
            )
            if claim is None:
                continue
            yield Finding(
                object=table.name,
                kind="table",
                policy=policy.name,
                text=f"Policy {policy.name} on {table.name} believes the claim {claim}, which users write.",
                evidence=[
                    *_example(database, table.name, policy.name),
                    Evidence(kind="catalog", text=f"the policy reads {claim}", data={"claim": claim}),
                ],
                remedy=Remedy(
                    sql=f"ALTER POLICY {database.quoted(policy.name)} ON {table.name} USING (…);",
                    python='jwt_claim("app_metadata", …)',
                    text="Read a claim that only your backend writes.",
                ),
            )


def _is_writable(name: str) -> bool:
    # The claims of an Auth0 Action start with a URL, and those of Cognito with a prefix.
    return name.rpartition("/")[2].rpartition(":")[2].lower().replace("_", "") in WRITABLE


def _claim(database: Database, sql: str) -> str | None:
    """Return the claim that *sql*, or a function that it calls, reads, if users write it."""
    vocabulary = read_expression(sql)
    called = {name[-1] for name in vocabulary.functions}
    found: list[Vocabulary] = [vocabulary]
    found += [one.vocabulary for one in database.schema.functions.values() if one.name in called]
    for one in found:
        for path in one.claims:
            if any(map(_is_writable, path)):
                return ".".join(path)
    return None


def _example(database: Database, name: str, policy: str) -> list[Evidence]:
    """Return a row that a caller reaches by the claim only."""
    for role in database.roles_with_privileges(name):
        if not database.is_active(name, role) or policy not in database.profiles[name, role].policies:
            continue
        reach = Reaches.of(database).of_table(name, role)
        case = reach and _by_the_claim(reach)
        if reach and case:
            return [reach.evidence(case, "{who} reaches {row}, and not without the claim")]
    return []


def _by_the_claim(reach: Reach) -> Case | None:
    cases = list(reach.cases())
    for case in cases:
        if not any(map(_is_writable, case.actor.claims or {})):
            continue
        rest = {key: one for key, one in (case.actor.claims or {}).items() if not _is_writable(key)}
        for part in ("select", "insert", "update", "delete"):
            if reach.is_true(part, case) and any(
                not reach.is_true(part, other)
                for other in cases
                if other.place[1] == case.place[1]
                and (other.actor.claims or {}) == rest
                and other.actor.settings == case.actor.settings
            ):
                return case
    return None
