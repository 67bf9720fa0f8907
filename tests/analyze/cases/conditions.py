"""Changes of the text of a policy's condition."""

from __future__ import annotations

from tests.analyze.cases.case import (
    ALICE,
    BOB,
    CALLERS,
    DOCS,
    DOCS_ROWS,
    MINE,
    TEAMS,
    TEAMS_ROWS,
    Caller,
    Case,
    both,
    closes,
    opens,
    rows,
    with_claims,
)

_ME = "(SELECT auth.user_id())"
_OWN = f"owner = {_ME}"
_TEAMS = "(SELECT auth.jwt() -> 'teams')"


def _policy(using: str, *, table: str = "docs", role: str = "authenticated") -> str:
    return f"CREATE POLICY mine ON {table} TO {role} USING ({using});"


def _changed(using: str, *, table: str = "docs") -> str:
    return f"ALTER POLICY mine ON {table} USING ({using});"


def _in_claim(name: str) -> str:
    """The condition of in_jwt_claim()."""
    listed = f"CASE jsonb_typeof(claims -> '{name}') WHEN 'array' THEN claims -> '{name}' ELSE '[null]' END"
    return (
        "owner = ANY (ARRAY(SELECT CASE jsonb_typeof(value) WHEN 'string' THEN value #>> '{}' END"
        f" FROM auth.jwt() AS claims, jsonb_array_elements({listed}) AS value))"
    )


def _claim_contains(name: str, value: str) -> str:
    """The condition of jwt_claim_contains()."""
    return (
        f"(SELECT CASE jsonb_typeof(claims -> '{name}') WHEN 'array'"
        f" THEN claims -> '{name}' @> CAST('[\"{value}\"]' AS jsonb) END FROM auth.jwt() AS claims)"
    )


CASES = [
    Case(
        name="IN respelled as EXISTS",
        before=TEAMS + _policy(MINE),
        after=_changed(
            f"EXISTS (SELECT FROM members AS m WHERE m.org_id = docs.org_id AND m.user_id = {_ME})"
        ),
        rows=TEAMS_ROWS,
        is_quick=True,
    ),
    Case(
        name="IN respelled as = ANY of an array",
        before=TEAMS + _policy(MINE),
        after=_changed(f"org_id = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = {_ME}))"),
        rows=TEAMS_ROWS,
    ),
    Case(
        name="IN respelled as a lateral join",
        before=TEAMS + _policy(MINE),
        after=_changed(
            "EXISTS (SELECT FROM (SELECT auth.user_id() AS me) AS c, LATERAL"
            " (SELECT FROM members AS m WHERE m.user_id = c.me AND m.org_id = docs.org_id) AS mine)"
        ),
        rows=TEAMS_ROWS,
    ),
    Case(
        name="IN respelled as a count of one, which the primary key allows",
        before=TEAMS + _policy(MINE),
        after=_changed(
            f"(SELECT count(*) FROM members AS m WHERE m.org_id = docs.org_id AND m.user_id = {_ME}) = 1"
        ),
        rows=TEAMS_ROWS,
    ),
    Case(
        name="EXISTS respelled as a count of one, without a key that allows it",
        before=TEAMS.replace(", PRIMARY KEY (org_id, user_id)", "") + _policy(MINE),
        after=_changed(
            f"(SELECT count(*) FROM members AS m WHERE m.org_id = docs.org_id AND m.user_id = {_ME}) = 1"
        ),
        rows={
            "members": rows("org_id user_id", (1, "alice"), (1, "alice"), (2, "bob")),
            "docs": TEAMS_ROWS["docs"],
        },
        expected=closes("docs", "ALL"),
    ),
    Case(
        name="The caller is forgotten",
        before=TEAMS + _policy(MINE),
        after=_changed("org_id IN (SELECT m.org_id FROM members AS m)"),
        rows=TEAMS_ROWS,
        expected=opens("docs", "ALL"),
        is_quick=True,
    ),
    Case(
        name="A correlation with the wrong table is always true",
        before=TEAMS
        + _policy(f"EXISTS (SELECT FROM members AS m WHERE m.org_id = docs.org_id AND m.user_id = {_ME})"),
        after=_changed(f"EXISTS (SELECT FROM members AS m WHERE org_id = m.org_id AND m.user_id = {_ME})"),
        rows=TEAMS_ROWS,
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="The wrong column holds the owner",
        before=DOCS.replace("body text", "author text, body text") + _policy(_OWN),
        after=_changed(f"author = {_ME}"),
        rows={
            "docs": rows(
                "id owner author body",
                (1, "alice", "bob", "x"),
                (2, "bob", "alice", "x"),
                (3, "alice", "alice", "x"),
            )
        },
        expected=both("docs", "ALL"),
    ),
    Case(
        name="A branch for the anonymous",
        before=DOCS + _policy(_OWN, role="PUBLIC"),
        after=_changed(f"{_OWN} OR {_ME} IS NULL"),
        rows=DOCS_ROWS,
        expected=opens("docs", "ALL", "anonymous", "authenticated"),
    ),
    Case(
        name="Tightened to what isn't deleted",
        before=DOCS.replace("body text", "deleted bool NOT NULL DEFAULT false") + _policy(_OWN),
        after=_changed(f"{_OWN} AND NOT deleted"),
        rows={"docs": rows("id owner deleted", (1, "alice", False), (2, "alice", True), (3, "bob", True))},
        expected=closes("docs", "ALL"),
    ),
    Case(
        name="The conjunct about deleted rows is dropped",
        before=DOCS.replace("body text", "deleted bool") + _policy(f"{_OWN} AND NOT deleted"),
        after=_changed(_OWN),
        rows={"docs": rows("id owner deleted", (1, "alice", False), (2, "alice", True), (3, "alice", None))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="OR true",
        before=DOCS + _policy(_OWN),
        after=_changed(f"{_OWN} OR true"),
        rows=DOCS_ROWS,
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="AND true, and parentheses",
        before=DOCS + _policy(_OWN),
        after=_changed(f"(({_OWN}) AND true) OR false"),
        rows=DOCS_ROWS,
    ),
    Case(
        name="De Morgan",
        before=DOCS + _policy(f"NOT (body = 'secret' OR owner <> {_ME})"),
        after=_changed(f"NOT body = 'secret' AND NOT owner <> {_ME}"),
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "alice", "secret"), (3, "alice", None))},
    ),
    Case(
        name="OR respelled as CASE, with the same NULLs",
        before=DOCS + _policy(f"body = 'public' OR {_OWN}"),
        after=_changed(f"CASE WHEN body = 'public' THEN true ELSE {_OWN} END"),
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "public"), (3, "bob", None))},
    ),
    Case(
        name="<> becomes IS DISTINCT FROM",
        before=DOCS + _policy("body <> 'draft'"),
        after=_changed("body IS DISTINCT FROM 'draft'"),
        rows={"docs": rows("id owner body", (1, "alice", "draft"), (2, "bob", None), (3, "bob", "x"))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="NULL owners belong to callers without a subject",
        before=DOCS + _policy(_OWN),
        after=_changed(f"owner IS NOT DISTINCT FROM {_ME}"),
        rows=DOCS_ROWS,
        expected=opens("docs", "ALL"),
        is_quick=True,
    ),
    Case(
        name="coalesce makes NULL equal to an empty text",
        before=DOCS + _policy(_OWN),
        after=_changed(f"coalesce(owner, '') = coalesce({_ME}, '')"),
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "", "x"), (3, None, "x"))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="coalesce of a column that can't be NULL",
        before=DOCS.replace("owner text", "owner text NOT NULL") + _policy(_OWN),
        after=_changed(f"coalesce(owner, '') = {_ME}"),
        rows={"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "x"))},
    ),
    Case(
        name="NOT IN becomes NOT EXISTS",
        before=DOCS
        + "CREATE TABLE blocked (user_id text); GRANT SELECT ON blocked TO authenticated;"
        + _policy("owner NOT IN (SELECT b.user_id FROM blocked AS b)"),
        after=_changed("NOT EXISTS (SELECT FROM blocked AS b WHERE b.user_id = docs.owner)"),
        rows={"blocked": rows("user_id", ("bob",), (None,)), **DOCS_ROWS},
        # A NULL in the list, or a document without an owner beside any row.
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="The listed constants change their order",
        before=DOCS + _policy("body IN ('public', 'shared', 'x')"),
        after=_changed("body = 'x' OR body = ANY ('{shared,public}')"),
        rows={"docs": rows("id owner body", (1, "a", "public"), (2, "a", "shared"), (3, "a", "y"))},
    ),
    Case(
        name="A constant more",
        before=DOCS + _policy("body IN ('public', 'shared')"),
        after=_changed("body IN ('public', 'shared', 'archived')"),
        rows={"docs": rows("id owner body", (1, "a", "public"), (2, "a", "archived"), (3, "a", "y"))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="The role within the team: one step lower",
        before="CREATE TYPE team_role AS ENUM ('viewer', 'editor', 'admin');"
        + TEAMS.replace("user_id text,", "user_id text, role team_role NOT NULL DEFAULT 'viewer',")
        + _policy(MINE[:-1] + " AND m.role >= 'editor')"),
        after=_changed(MINE[:-1] + " AND m.role >= 'viewer')"),
        rows={
            "members": rows(
                "org_id user_id role", (1, "alice", "viewer"), (2, "alice", "editor"), (2, "bob", "admin")
            ),
            "docs": rows("id org_id body", (1, 1, "x"), (2, 2, "x")),
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="A threshold of an enum respelled as a list",
        before="CREATE TYPE team_role AS ENUM ('viewer', 'editor', 'admin');"
        + TEAMS.replace("user_id text,", "user_id text, role team_role NOT NULL DEFAULT 'viewer',")
        + _policy(MINE[:-1] + " AND m.role >= 'editor')"),
        after=_changed(MINE[:-1] + " AND m.role IN ('admin', 'editor'))"),
        rows={
            "members": rows(
                "org_id user_id role", (1, "alice", "viewer"), (2, "alice", "editor"), (2, "bob", "admin")
            ),
            "docs": rows("id org_id body", (1, 1, "x"), (2, 2, "x")),
        },
    ),
    Case(
        name="A list of roles forgets the highest",
        before=TEAMS.replace("user_id text,", "user_id text, role text,")
        + _policy(MINE[:-1] + " AND m.role IN ('owner', 'editor'))"),
        after=_changed(MINE[:-1] + " AND m.role IN ('viewer', 'editor'))"),
        rows={
            "members": rows(
                "org_id user_id role", (1, "alice", "viewer"), (2, "alice", "owner"), (2, "bob", "editor")
            ),
            "docs": rows("id org_id body", (1, 1, "x"), (2, 2, "x")),
        },
        expected=both("docs", "ALL"),
    ),
    Case(
        name="A claim that may be absent",
        before=DOCS + _policy("owner = (SELECT auth.jwt() ->> 'tenant')"),
        after=_changed(
            "owner = (SELECT auth.jwt() ->> 'tenant') OR (SELECT auth.jwt() ->> 'tenant') IS NULL"
        ),
        rows={"docs": rows("id owner body", (1, "t1", "x"), (2, "t2", "x"))},
        callers=with_claims(None, ALICE, {"sub": "alice", "tenant": "t1"}, {"tenant": "t3"}),
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="A claim that the user may edit",
        before=DOCS + _policy("(SELECT auth.jwt() #>> '{app_metadata,role}') = 'admin'"),
        after=_changed("(SELECT auth.jwt() #>> '{user_metadata,role}') = 'admin'"),
        rows=DOCS_ROWS,
        callers=with_claims(
            ALICE,
            {"sub": "alice", "app_metadata": {"role": "admin"}},
            {"sub": "bob", "user_metadata": {"role": "admin"}},
        ),
        expected=both("docs", "ALL"),
    ),
    Case(
        name="The presence of a claim instead of its value",
        before=DOCS + _policy("(SELECT (auth.jwt() ->> 'admin')::bool)"),
        after=_changed("(SELECT auth.jwt() ? 'admin')"),
        rows=DOCS_ROWS,
        callers=with_claims(
            ALICE, {"sub": "alice", "admin": True}, {"sub": "bob", "admin": False}, {"admin": None}
        ),
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="A claim's list respelled, but a token may have a text in its place",
        before=DOCS + _policy("(SELECT auth.jwt() -> 'teams') ? owner"),
        after=_changed("owner IN (SELECT jsonb_array_elements_text((SELECT auth.jwt() -> 'teams')))"),
        rows={"docs": rows("id owner body", (1, "red", "x"), (2, "blue", "x"), (3, None, "x"))},
        callers=with_claims(None, ALICE, {"teams": []}, {"teams": ["red", "blue"]}, {"teams": "red"}),
        expected=closes("docs", "ALL"),
    ),
    Case(
        name="A claim's list respelled",
        before=DOCS + _policy(f"jsonb_typeof({_TEAMS}) = 'array' AND {_TEAMS} ? owner"),
        after=_changed(
            f"EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof({_TEAMS}) WHEN 'array' THEN {_TEAMS} END)"
            " AS e WHERE e = to_jsonb(owner))"
        ),
        rows={"docs": rows("id owner body", (1, "red", "x"), (2, "1", "x"), (3, None, "x"))},
        callers=with_claims(None, ALICE, {"teams": ["red", 1]}, {"teams": "red"}, {"teams": {"red": 1}}),
    ),
    Case(
        name="in_jwt_claim() of another claim",
        before=DOCS + _policy(_in_claim("teams")),
        after=_changed(_in_claim("groups")),
        rows={"docs": rows("id owner body", (1, "red", "x"), (2, "blue", "x"), (3, None, "x"))},
        callers=with_claims(None, ALICE, {"teams": ["red"]}, {"groups": ["blue"]}),
        expected=both("docs", "ALL"),
    ),
    Case(
        name="jwt_claim_contains() of another value",
        before=DOCS + _policy(_claim_contains("permissions", "read")),
        after=_changed(_claim_contains("permissions", "write")),
        rows=DOCS_ROWS,
        callers=with_claims(None, ALICE, {"permissions": ["read"]}, {"permissions": ["write"]}),
        expected=both("docs", "ALL"),
    ),
    Case(
        name="A claim of all claims, which a query names",
        before=DOCS + _policy("(SELECT c ->> 'role' FROM (SELECT auth.jwt() AS c) AS t) = 'admin'"),
        after=_changed("(WITH t AS (SELECT auth.jwt() AS c) SELECT c ->> 'role' FROM t) = 'owner'"),
        rows=DOCS_ROWS,
        callers=with_claims(None, ALICE, {"role": "admin"}, {"role": "owner"}),
        expected=both("docs", "ALL"),
    ),
    Case(
        name="A number in a claim is compared as text",
        before=DOCS.replace("body text", "level int") + _policy("level <= (auth.jwt() ->> 'level')::int"),
        after=_changed("level::text <= (auth.jwt() ->> 'level')"),
        rows={"docs": rows("id owner level", (1, "a", 10), (2, "a", 9), (3, "a", 2))},
        callers=with_claims(ALICE, {"level": 10}, {"level": 9}, {"level": 2}),
        expected=both("docs", "ALL"),
    ),
    Case(
        name="A setting that may be absent",
        before=DOCS + _policy("owner = current_setting('app.tenant', true)"),
        after=_changed("owner = current_setting('app.tenant', true) OR current_setting('app.tenant') = ''"),
        rows={"docs": rows("id owner body", (1, "t1", "x"), (2, "t2", "x"))},
        callers=(
            Caller(settings={"app.tenant": ""}),
            Caller(settings={"app.tenant": "t1"}),
            Caller(settings={"app.tenant": "t3"}),
        ),
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="A setting whose absence is no error any more",
        before=DOCS + _policy("owner = current_setting('app.team')"),
        after=_changed("owner = current_setting('app.team', true)"),
        rows={"docs": rows("id owner body", (1, "t1", "x"), (2, "t2", "x"))},
        callers=(Caller(), Caller(settings={"app.team": "t1"})),
    ),
    Case(
        name="A key of a JSON column that may be absent",
        before=DOCS.replace("body text", "meta jsonb") + _policy("meta ->> 'visibility' = 'public'"),
        after=_changed("coalesce(meta ->> 'visibility', 'public') = 'public'"),
        rows={
            "docs": rows(
                "id owner meta",
                (1, "a", '{"visibility": "public"}'),
                (2, "a", '{"visibility": "private"}'),
                (3, "a", "{}"),
                (4, "a", None),
            )
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="Half of a composite key",
        before="""
CREATE TABLE members (tenant int, org int, user_id text, PRIMARY KEY (tenant, org, user_id));
CREATE TABLE docs (tenant int, id int, org int, PRIMARY KEY (tenant, id));
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO authenticated; GRANT ALL ON docs TO authenticated;
"""
        + _policy(
            "EXISTS (SELECT FROM members AS m WHERE m.tenant = docs.tenant AND m.org = docs.org"
            f" AND m.user_id = {_ME})"
        ),
        after=_changed(f"EXISTS (SELECT FROM members AS m WHERE m.org = docs.org AND m.user_id = {_ME})"),
        rows={
            "members": rows("tenant org user_id", (1, 1, "alice"), (2, 2, "bob")),
            "docs": rows("tenant id org", (1, 1, 1), (2, 1, 1), (2, 2, 2)),
        },
        updates={"docs": rows("id", (9,))},
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="A composite key respelled as a row",
        before="""
CREATE TABLE members (tenant int, org int, user_id text, PRIMARY KEY (tenant, org, user_id));
CREATE TABLE docs (tenant int, id int, org int, PRIMARY KEY (tenant, id));
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO authenticated; GRANT ALL ON docs TO authenticated;
"""
        + _policy(
            "EXISTS (SELECT FROM members AS m WHERE m.tenant = docs.tenant AND m.org = docs.org"
            f" AND m.user_id = {_ME})"
        ),
        after=_changed(
            f"(tenant, org) IN (SELECT m.tenant, m.org FROM members AS m WHERE m.user_id = {_ME})"
        ),
        rows={
            "members": rows("tenant org user_id", (1, 1, "alice"), (2, 2, "bob")),
            "docs": rows("tenant id org", (1, 1, 1), (2, 1, 1), (2, 2, 2)),
        },
    ),
    Case(
        name="One approval is enough, no longer two",
        before=DOCS
        + "CREATE TABLE approvals (doc_id int, user_id text, PRIMARY KEY (doc_id, user_id));"
        + "GRANT SELECT ON approvals TO authenticated;"
        + _policy("(SELECT count(*) FROM approvals AS a WHERE a.doc_id = docs.id) >= 2"),
        after=_changed("(SELECT count(*) FROM approvals AS a WHERE a.doc_id = docs.id) >= 1"),
        rows={
            "approvals": rows("doc_id user_id", (1, "alice"), (1, "bob"), (2, "bob")),
            "docs": rows("id owner body", (1, "a", "x"), (2, "a", "x")),
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="Two approvals are enough, no longer three",
        before=DOCS
        + "CREATE TABLE approvals (doc_id int, user_id text, PRIMARY KEY (doc_id, user_id));"
        + "GRANT SELECT ON approvals TO authenticated;"
        + _policy("(SELECT count(*) FROM approvals AS a WHERE a.doc_id = docs.id) >= 3"),
        after=_changed("(SELECT count(*) FROM approvals AS a WHERE a.doc_id = docs.id) >= 2"),
        rows={
            "approvals": rows("doc_id user_id", (1, "alice"), (1, "bob"), (1, "carol")),
            "docs": rows("id owner body", (1, "a", "x")),
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="A chain of three tables loses a link",
        before="""
CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
CREATE TABLE folders (id int PRIMARY KEY, org_id int);
CREATE TABLE docs (id int PRIMARY KEY, folder_id int REFERENCES folders, body text);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members, folders TO authenticated; GRANT ALL ON docs TO authenticated;
"""
        + _policy(
            "EXISTS (SELECT FROM folders AS f JOIN members AS m ON m.org_id = f.org_id"
            f" WHERE f.id = docs.folder_id AND m.user_id = {_ME})"
        ),
        after=_changed(
            "EXISTS (SELECT FROM folders AS f JOIN members AS m ON true"
            f" WHERE f.id = docs.folder_id AND m.user_id = {_ME})"
        ),
        rows={
            "members": rows("org_id user_id", (1, "alice"), (2, "bob")),
            "folders": rows("id org_id", (1, 1), (2, 2)),
            "docs": rows("id folder_id body", (1, 1, "x"), (2, 2, "x")),
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="Owners of a folder above",
        before="""
CREATE TABLE folders (id int PRIMARY KEY, parent_id int REFERENCES folders, owner text);
CREATE TABLE docs (id int PRIMARY KEY, folder_id int REFERENCES folders, body text);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON folders TO authenticated; GRANT ALL ON docs TO authenticated;
"""
        + _policy(f"folder_id IN (SELECT f.id FROM folders AS f WHERE f.owner = {_ME})"),
        after=_changed(
            f"folder_id IN (WITH RECURSIVE mine AS (SELECT f.id FROM folders AS f WHERE f.owner = {_ME}"
            " UNION SELECT f.id FROM folders AS f JOIN mine ON f.parent_id = mine.id) SELECT id FROM mine)"
        ),
        rows={
            "folders": rows("id parent_id owner", (1, None, "alice"), (2, 1, "bob")),
            "docs": rows("id folder_id body", (1, 1, "x"), (2, 2, "x")),
        },
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="Three ways to read a document, of which the public one goes",
        before=DOCS
        + "CREATE TABLE shares (doc_id int, user_id text, PRIMARY KEY (doc_id, user_id));"
        + "GRANT SELECT ON shares TO authenticated;"
        + _policy(
            f"{_OWN} OR body = 'public' OR id IN (SELECT s.doc_id FROM shares AS s WHERE s.user_id = {_ME})"
        ),
        after=_changed(f"{_OWN} OR id IN (SELECT s.doc_id FROM shares AS s WHERE s.user_id = {_ME})"),
        rows={
            "shares": rows("doc_id user_id", (2, "alice")),
            "docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "x"), (3, "bob", "public")),
        },
        expected=closes("docs", "ALL"),
    ),
    Case(
        name="The caller's role instead of the subject",
        before=DOCS + _policy(_OWN, role="anonymous, authenticated"),
        after=_changed(f"{_OWN} OR current_user = 'authenticated'"),
        rows=DOCS_ROWS,
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="A new subject that nobody else has",
        before=DOCS + _policy(_OWN),
        after=_changed(f"{_OWN} OR {_ME} = 'root'"),
        rows=DOCS_ROWS,
        callers=(*CALLERS, Caller(claims={"sub": "root"})),
        expected=opens("docs", "ALL"),
    ),
    Case(
        name="The claims read as JSON text respelled as a function",
        before=DOCS
        + _policy("owner = (SELECT nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub')"),
        after=_changed(_OWN),
        rows=DOCS_ROWS,
        callers=with_claims(None, {}, ALICE, BOB),
    ),
]
