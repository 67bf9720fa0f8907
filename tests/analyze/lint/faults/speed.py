"""Policies that make plans slow."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import MEMBERS, OWN, Fault, Slow, Work

_DOCS: Final = ("public.docs",)
_MANY: Final = """
INSERT INTO docs SELECT n, 'user' || n % 2000, 'body ' || n FROM generate_series(1, 20000) AS n;
INSERT INTO docs VALUES (0, 'alice', 'a');
ANALYZE docs;
"""
_TABLE: Final = """
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, body text);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
"""
_INDEXED: Final = _TABLE + "CREATE INDEX docs_owner ON docs (owner);\n"
_COUNT: Final = "SELECT count(*) FROM docs"


def _slow(
    name: str,
    rule: str,
    using: str,
    *,
    schema: str = _INDEXED,
    rows: str = _MANY,
    mend: str = f"ALTER POLICY own ON docs USING ({OWN});",
    statement: str = _COUNT,
    factor: float = 20,
    by: Work = "rows",
    objects: tuple[str, ...] = _DOCS,
) -> Fault:
    return Fault(
        name=name,
        group="speed",
        rule=rule,
        objects=objects,
        schema=schema + f"CREATE POLICY own ON docs FOR SELECT TO authenticated USING ({using});",
        rows=rows,
        mend=mend,
        shows=(Slow(statement=statement, factor=factor, by=by),),
    )


_ORG_DOCS: Final = """
CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL, body text);
CREATE INDEX docs_org_id ON docs (org_id);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
"""
_ORG_ROWS: Final = """
INSERT INTO members VALUES ('alice', 7), ('bob', 8);
INSERT INTO members SELECT 'user' || n, n % 2000 FROM generate_series(1, 4000) AS n;
INSERT INTO docs SELECT n, n % 2000, 'x' FROM generate_series(1, 20000) AS n;
ANALYZE members, docs;
"""
_MEND_ORGS: Final = """
ALTER POLICY own ON docs USING (
  org_id = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))));
"""


def _team(name: str, rule: str, using: str, *, helpers: str = "", by: Work = "rows") -> Fault:
    return _slow(
        name,
        rule,
        using,
        schema=MEMBERS + _ORG_DOCS + helpers,
        rows=_ORG_ROWS,
        mend=_MEND_ORGS,
        by=by,
    )


FAULTS: Final = [
    _slow(
        "drizzle's form: the comparison is inside the subquery",
        "function-per-row",
        "(SELECT auth.user_id() = owner)",
    ),
    _slow(
        "A function is called for each row, since no index has the column",
        "function-per-row",
        "owner = auth.user_id()",
        schema=_TABLE,
        mend=f"CREATE INDEX docs_owner ON docs (owner); ALTER POLICY own ON docs USING ({OWN});",
        by="calls",
    ),
    _slow(
        "The claims are read for each row",
        "function-per-row",
        "owner = auth.jwt() ->> 'sub' OR body = auth.jwt() ->> 'body'",
        mend=f"""
CREATE INDEX docs_body ON docs (body);
ALTER POLICY own ON docs USING ({OWN} OR body = (SELECT auth.jwt() ->> 'body'));
""",
        by="calls",
    ),
    _slow(
        "A function decides about each row",
        "function-per-row",
        "is_mine(owner)",
        schema=_INDEXED
        + """
CREATE FUNCTION is_mine(text) RETURNS boolean LANGUAGE plpgsql STABLE
  AS 'BEGIN RETURN $1 = auth.user_id(); END';
""",
    ),
    _team(
        "Membership by IN and a subquery",
        "slow-membership",
        "org_id IN (SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))",
    ),
    _team(
        "Membership by EXISTS",
        "slow-membership",
        "EXISTS (SELECT FROM members AS m WHERE m.org_id = docs.org_id "
        "AND m.user_id = (SELECT auth.user_id()))",
    ),
    _team(
        "Membership by the caller's side",
        "slow-membership",
        "(SELECT auth.user_id()) IN (SELECT m.user_id FROM members AS m WHERE m.org_id = docs.org_id)",
    ),
    _team(
        "Membership by a function for each row",
        "function-per-row",
        "is_member(org_id)",
        helpers="""
CREATE FUNCTION is_member(org int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS 'SELECT EXISTS (SELECT FROM public.members AS m WHERE m.org_id = org AND m.user_id = auth.user_id())';
REVOKE EXECUTE ON FUNCTION is_member(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_member(int) TO authenticated;
""",
    ),
    _slow(
        "A cast on the column's side",
        "column-in-expression",
        "owner::text = (SELECT auth.user_id())",
        schema=_INDEXED.replace("owner text", "owner uuid"),
        rows="""
INSERT INTO docs SELECT n, gen_random_uuid(), 'x' FROM generate_series(1, 20000) AS n;
ANALYZE docs;
""",
        mend="ALTER POLICY own ON docs USING (owner = (SELECT auth.uid()));",
    ),
    _slow(
        "A function on the column's side",
        "column-in-expression",
        "lower(owner) = (SELECT auth.user_id())",
        mend="CREATE INDEX docs_lower ON docs (lower(owner)); ANALYZE docs;",
        rows=_MANY,
    ),
    _slow(
        "Two columns joined to one text",
        "column-in-expression",
        "body || owner = (SELECT auth.user_id())",
        rows=_MANY + "UPDATE docs SET body = '' WHERE id = 0; ANALYZE docs;",
        mend=f"ALTER POLICY own ON docs USING ({OWN} AND body = '');",
    ),
    _slow(
        "No index has the column",
        "missing-index",
        OWN,
        schema=_TABLE,
        mend="CREATE INDEX docs_owner ON docs (owner);",
    ),
    _slow(
        "An index has the column in the second place",
        "missing-index",
        OWN,
        schema=_TABLE + "CREATE INDEX docs_body_owner ON docs (body, owner);",
        mend="CREATE INDEX docs_owner_body ON docs (owner, body);",
        by="pages",
        statement="SELECT count(*) FROM docs WHERE id >= 0",
    ),
    _slow(
        "An index is partial, and the policy doesn't imply its condition",
        "missing-index",
        OWN,
        schema=_TABLE + "CREATE INDEX docs_owner ON docs (owner) WHERE body = 'open';",
        mend="DROP INDEX docs_owner; CREATE INDEX docs_owner ON docs (owner);",
    ),
    _slow(
        "A membership table has no index that leads with the caller",
        "missing-index",
        "org_id = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id())))",
        schema=MEMBERS.replace("PRIMARY KEY (user_id, org_id)", "PRIMARY KEY (org_id, user_id)") + _ORG_DOCS,
        rows=_ORG_ROWS,
        mend="CREATE INDEX members_user_id ON members (user_id);",
        factor=2,
        objects=("public.members", "public.docs"),
    ),
    _slow(
        "The index of an enum can't be used: its operators aren't leakproof",
        "not-leakproof",
        "body IS NOT NULL OR owner = (SELECT auth.user_id())",
        schema="CREATE TYPE state AS ENUM ('open', 'done');"
        + _INDEXED.replace("body text", "body text, state state")
        + "CREATE INDEX docs_state ON docs (state);",
        rows="""
INSERT INTO docs SELECT n, 'user' || n, 'x', 'open' FROM generate_series(1, 20000) AS n;
INSERT INTO docs VALUES (0, 'alice', 'a', 'done');
ANALYZE docs;
""",
        mend="ALTER TABLE docs ALTER COLUMN state TYPE text; ANALYZE docs;",
        statement="SELECT count(*) FROM docs WHERE state = 'done'",
    ),
    _slow(
        "A full-text index can't be used: its operators aren't leakproof",
        "not-leakproof",
        "body IS NOT NULL OR owner = (SELECT auth.user_id())",
        schema=_INDEXED.replace(
            "body text", "body text, words tsvector GENERATED ALWAYS AS (to_tsvector('simple', body)) STORED"
        )
        + "CREATE INDEX docs_words ON docs USING gin (words);",
        mend="RESET ROLE; ALTER FUNCTION ts_match_vq(tsvector, tsquery) LEAKPROOF;",
        statement="SELECT count(*) FROM docs WHERE words @@ to_tsquery('777')",
    ),
    _slow(
        "A volatile function in a policy",
        "volatile-function",
        "owner = me()",
        schema=_INDEXED
        + "CREATE FUNCTION me() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN auth.user_id(); END';",
        objects=(*_DOCS, "public.me()"),
        mend="ALTER FUNCTION me() STABLE; ALTER POLICY own ON docs USING (owner = (SELECT me()));",
    ),
    _slow(
        "Several permissive policies for one command",
        "several-permissive-policies",
        OWN,
        schema=_INDEXED
        + """
CREATE POLICY drafts ON docs FOR SELECT TO authenticated USING ((SELECT auth.jwt() ->> 'draft') = body || id);
CREATE POLICY staff ON docs FOR SELECT TO authenticated USING ((SELECT auth.jwt() ->> 'staff') = body);
""",
        mend="DROP POLICY drafts ON docs; DROP POLICY staff ON docs;",
    ),
]
