"""Changes of the values in a policy's condition: times, numbers, texts, lists."""

from __future__ import annotations

from tests.analyze.cases.case import (
    ALICE,
    DOCS,
    Case,
    Sql,
    closes,
    opens,
    rows,
    with_claims,
)

_ME = "(SELECT auth.user_id())"
_WITH_UUIDS = with_claims(
    None, ALICE, *({"sub": f"00000000-0000-4000-8000-00000000000{number}"} for number in (1, 2))
)


def _policy(using: str, *, table: str = "docs", role: str = "authenticated") -> str:
    return f"CREATE POLICY mine ON {table} TO {role} USING ({using});"


def _changed(using: str, *, table: str = "docs") -> str:
    return f"ALTER POLICY mine ON {table} USING ({using});"


CASES = [
    Case(
        name="30 days become 60",
        before=DOCS.replace("body text", "made_at timestamptz")
        + _policy("made_at > now() - interval '30 days'"),
        after=_changed("made_at > now() - interval '60 days'"),
        rows={
            "docs": rows(
                "id owner made_at",
                (1, "a", Sql("now() - interval '45 days'")),
                (2, "a", Sql("now() - interval '1 day'")),
                (3, "a", Sql("now() - interval '100 days'")),
            )
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="720 hours instead of 30 days",
        before=DOCS.replace("body text", "made_at timestamp")
        + _policy("made_at > localtimestamp - interval '30 days'"),
        after=_changed("localtimestamp - interval '720 hours' < made_at"),
        rows={
            "docs": rows(
                "id owner made_at",
                (1, "a", Sql("localtimestamp - interval '45 days'")),
                (2, "a", Sql("localtimestamp - interval '29 days'")),
                (3, "a", Sql("localtimestamp - interval '30 days'")),
            )
        },
    ),
    Case(
        name="What expires now is still valid",
        before=DOCS.replace("body text", "expires_at timestamptz") + _policy("expires_at > now()"),
        after=_changed("expires_at >= now()"),
        rows={
            "docs": rows(
                "id owner expires_at",
                (1, "a", Sql("now()")),
                (2, "a", Sql("now() - interval '1 day'")),
                (3, "a", Sql("now() + interval '1 day'")),
            )
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="The expiry of a share is dropped",
        before=DOCS
        + "CREATE TABLE shares (doc_id int, user_id text, expires_at timestamptz NOT NULL);"
        + "GRANT SELECT ON shares TO authenticated;"
        + _policy(
            f"EXISTS (SELECT FROM shares AS s WHERE s.doc_id = docs.id AND s.user_id = {_ME}"
            " AND s.expires_at > now())"
        ),
        after=_changed(f"EXISTS (SELECT FROM shares AS s WHERE s.doc_id = docs.id AND s.user_id = {_ME})"),
        rows={
            "shares": rows(
                "doc_id user_id expires_at",
                (1, "alice", Sql("now() - interval '1 hour'")),
                (2, "bob", Sql("now() + interval '1 hour'")),
            ),
            "docs": rows("id owner body", (1, "x", "x"), (2, "x", "x")),
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="> becomes >= in a number",
        before=DOCS.replace("body text", "level int") + _policy("level > 3"),
        after=_changed("level >= 3"),
        rows={"docs": rows("id owner level", (1, "a", 3), (2, "a", 4), (3, "a", 2))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="> becomes >= of the next whole number",
        before=DOCS.replace("body text", "level int") + _policy("level > 3"),
        after=_changed("level >= 4"),
        rows={"docs": rows("id owner level", (1, "a", 3), (2, "a", 4), (3, "a", None))},
    ),
    Case(
        name="> becomes >= of the next whole number, but the column has fractions",
        before=DOCS.replace("body text", "level numeric") + _policy("level > 3"),
        after=_changed("level >= 4"),
        rows={"docs": rows("id owner level", (1, "a", 3), (2, "a", 4), (3, "a", 3.5))},
        expected=closes("docs", "ALL"),
    ),
    Case(
        name="BETWEEN respelled",
        before=DOCS.replace("body text", "level int") + _policy("level BETWEEN 3 AND 5"),
        after=_changed("3 <= level AND NOT level > 5"),
        rows={
            "docs": rows("id owner level", (1, "a", 2), (2, "a", 3), (3, "a", 5), (4, "a", 6), (5, "a", None))
        },
    ),
    Case(
        name="A sum of two columns has another limit",
        before=DOCS.replace("body text", "a int, b int") + _policy("a + b < 10"),
        after=_changed("a + b < 11"),
        rows={"docs": rows("id owner a b", (1, "x", 5, 5), (2, "x", 4, 5), (3, "x", 6, 5))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="LIKE with a shorter prefix",
        before=DOCS + _policy("body LIKE 'public-%'"),
        after=_changed("body LIKE 'pub%'"),
        rows={"docs": rows("id owner body", (1, "a", "public-1"), (2, "a", "publisher"), (3, "a", "x"))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="LIKE becomes ILIKE",
        before=DOCS + _policy("body LIKE 'public-%'"),
        after=_changed("body ILIKE 'public-%'"),
        rows={"docs": rows("id owner body", (1, "a", "public-1"), (2, "a", "PUBLIC-1"), (3, "a", "x"))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="LIKE respelled as starts_with",
        before=DOCS + _policy("body LIKE 'public%'"),
        after=_changed("starts_with(body, 'public')"),
        rows={"docs": rows("id owner body", (1, "a", "public"), (2, "a", "public-1"), (3, "a", None))},
    ),
    Case(
        name="An underscore in LIKE is a wildcard",
        before=DOCS + _policy(r"body LIKE 'team\_a'"),
        after=_changed("body LIKE 'team_a'"),
        rows={"docs": rows("id owner body", (1, "a", "team_a"), (2, "a", "team-a"), (3, "a", "x"))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="= ANY of an array respelled as @>",
        before=DOCS.replace("body text", "editors text[]") + _policy(f"{_ME} = ANY (editors)"),
        after=_changed(f"editors @> ARRAY[{_ME}]"),
        rows={
            "docs": rows(
                "id owner editors",
                (1, "a", "{alice}"),
                (2, "a", "{alice,bob}"),
                (3, "a", "{NULL}"),
                (4, "a", None),
            )
        },
    ),
    Case(
        name="Readers may edit",
        before=DOCS.replace("body text", "editors text[] NOT NULL, readers text[] NOT NULL")
        + _policy(f"{_ME} = ANY (editors)"),
        after=_changed(f"{_ME} = ANY (editors || readers)"),
        rows={
            "docs": rows("id owner editors readers", (1, "a", "{alice}", "{bob}"), (2, "a", "{}", "{alice}"))
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="All tags become one of the tags",
        before=DOCS.replace("body text", "tags text[]") + _policy("tags @> '{public,reviewed}'"),
        after=_changed("tags && '{public,reviewed}'"),
        rows={
            "docs": rows(
                "id owner tags", (1, "a", "{public,reviewed}"), (2, "a", "{public}"), (3, "a", "{x}")
            )
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="An address in capitals is the same person",
        before=DOCS + _policy("owner = (SELECT auth.jwt() ->> 'email')"),
        after=_changed("lower(owner) = lower((SELECT auth.jwt() ->> 'email'))"),
        rows={"docs": rows("id owner body", (1, "a@x.org", "x"), (2, "A@X.ORG", "x"), (3, "b@x.org", "x"))},
        callers=with_claims(None, {"email": "a@x.org"}, {"email": "B@x.org"}),
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="Drafts of a domain are open, too",
        before=DOCS + _policy("body = 'published' AND split_part(owner, '@', 2) = 'x.org'"),
        after=_changed("body IN ('published', 'draft') AND split_part(owner, '@', 2) = 'x.org'"),
        rows={
            "docs": rows(
                "id owner body",
                (1, "a@x.org", "published"),
                (2, "a@x.org", "draft"),
                (3, "a@y.org", "draft"),
                (4, "a@x.org", "x"),
            )
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="A uuid column and a cast on its other side",
        before=DOCS.replace("owner text", "owner uuid") + _policy("owner = (SELECT auth.uid())"),
        after=_changed("owner::text = (SELECT auth.uid()::text)"),
        rows={
            "docs": rows(
                "id owner body",
                (1, "00000000-0000-4000-8000-000000000001", "x"),
                (2, "00000000-0000-4000-8000-000000000002", "x"),
                (3, None, "x"),
            )
        },
        callers=_WITH_UUIDS,
    ),
    Case(
        name="The first eight letters of a uuid",
        before=DOCS.replace("owner text", "owner uuid") + _policy("owner = (SELECT auth.uid())"),
        after=_changed("left(owner::text, 8) = left((SELECT auth.uid()::text), 8)"),
        rows={
            "docs": rows(
                "id owner body",
                (1, "00000000-0000-4000-8000-000000000001", "x"),
                (2, "00000000-0000-4000-8000-000000000002", "x"),
                (3, "10000000-0000-4000-8000-000000000002", "x"),
            )
        },
        callers=_WITH_UUIDS,
        expected=opens("docs", "ALL"),
    ),
]
